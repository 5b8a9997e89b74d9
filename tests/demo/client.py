"""client.py SOCKET WORD COUNT: say WORD to the demo's server COUNT times; print its last answer."""
import socket
import sys

path, word, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
answer = ""
for i in range(count):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(f"{word} user{i}\n".encode() if word != "count" else b"count\n")
        answer = s.recv(100).decode().strip()
print(answer)
