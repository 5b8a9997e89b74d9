/*
 * A small server with a mistake: it forgets the sessions of clients that say neither "keep" nor
 * "quit". One line a connection on a unix socket; "count" answers how many it has forgotten.
 *
 *     server SOCKET
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct session {
    struct session *next;
    char *user;
    void *buffers[3];
    unsigned long number;
};

static struct session *kept;
static unsigned long session_count, forgotten_count;

static struct session *session_open(const char *user)
{
    struct session *session = calloc(1, sizeof *session);
    session->user = strdup(user);
    session->buffers[0] = malloc(4000);
    session->number = ++session_count;
    return session;
}

static void session_close(struct session *session)
{
    free(session->buffers[0]);
    free(session->user);
    free(session);
}

/* "keep NAME", "quit NAME"; with any other word nobody closes the session. */
__attribute__((noinline)) static void serve(int client, char *line)
{
    char *name = strchr(line, ' ');
    struct session *session = session_open(name ? name + 1 : "nobody");
    if (strncmp(line, "keep", 4) == 0) {
        session->next = kept;
        kept = session;
    } else if (strncmp(line, "quit", 4) == 0) {
        session_close(session);
    } else {
        forgotten_count++;
    }
    dprintf(client, "%lu\n", session_count);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (server < 0 || bind(server, (struct sockaddr *)&address, sizeof address) ||
        listen(server, 64)) {
        perror(path);
        exit(1);
    }
    return server;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    int server = listen_at(argv[1]);
    for (;;) {
        char line[256];
        int client = accept(server, NULL, NULL);
        ssize_t length = read(client, line, sizeof line - 1);
        line[length > 0 ? length : 0] = '\0';
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "count") == 0)
            dprintf(client, "%lu\n", forgotten_count);
        else if (length > 0)
            serve(client, line);
        close(client);
    }
}
