// What C++ does with pointers: array cookies, bases of multiple inheritance, exceptions in flight
// and kept, containers. Everything that the language holds is held; what is lost is lost.
#include "programs/truth.h"

#include <exception>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace
{

struct counted {
    void *inner = nullptr;
    long more[5] = {};
    ~counted()
    {
        // a destructor makes new[] keep a count
        more[0] = 0;
    }
};

struct alignas(16) wide {
    long content[6] = {};
    ~wide()
    {
        content[0] = 0;
    }
};

struct first_base {
    long padding[3] = {};
    virtual ~first_base() = default;
};
struct second_base {
    void *inner = nullptr;
    virtual ~second_base() = default;
};
struct derived : first_base, second_base {
    long own[4] = {};
};

counted *volatile kept_counted;
wide *volatile kept_wide;
second_base *volatile kept_base;
second_base *volatile kept_bases[3];
std::exception_ptr kept_exception;
std::map<int, std::string> *volatile kept_map;
std::shared_ptr<std::vector<std::string>> kept_shared;
std::unique_ptr<counted[]> kept_unique;

struct failure {
    void *block;
};

// Book a block by the address that malloc gave, which new[] hides behind its cookie.
template <typename T> void book(T *pointer, enum truth_state state, size_t cookie, size_t bytes)
{
    void *block = reinterpret_cast<char *>(pointer) - cookie;
    truth_event(truth_masked(block), state, bytes, malloc_usable_size(block));
}

TRUTH_NOINLINE void arrays()
{
    kept_counted = new counted[11];
    book(kept_counted, TRUTH_HELD, 8, 8 + 11 * sizeof(counted));
    kept_counted[10].inner = truth_malloc(40);
    kept_wide = new wide[5];
    book(kept_wide, TRUTH_HELD, 16, 16 + 5 * sizeof(wide));
    kept_unique.reset(new counted[3]);
    book(kept_unique.get(), TRUTH_HELD, 8, 8 + 3 * sizeof(counted));
    counted *lost = new counted[7];
    book(lost, TRUTH_DIRECT, 8, 8 + 7 * sizeof(counted));
    lost[2].inner = truth_malloc(40);
    truth_mark(lost[2].inner, TRUTH_INDIRECT);
}

TRUTH_NOINLINE void bases()
{
    for (int i = 0; i < 4; i++) {
        derived *object = new derived;
        truth_event(truth_masked(object), TRUTH_HELD, sizeof *object, malloc_usable_size(object));
        object->inner = truth_malloc(56);
        (i == 3 ? kept_base : kept_bases[i]) = object;
    }
    derived *lost = new derived;
    truth_event(truth_masked(lost), TRUTH_DIRECT, sizeof *lost, malloc_usable_size(lost));
}

TRUTH_NOINLINE void exception_kept()
{
    try {
        throw failure{truth_malloc(72)};
    } catch (...) {
        kept_exception = std::current_exception();
    }
}

TRUTH_NOINLINE void containers()
{
    kept_map = new std::map<int, std::string>;
    for (int i = 0; i < 50; i++)
        (*kept_map)[i] = std::string(static_cast<size_t>(i), 'x');
    kept_shared = std::make_shared<std::vector<std::string>>(20, std::string(100, 'y'));
}

TRUTH_NOINLINE void plant()
{
    arrays();
    bases();
    exception_kept();
    containers();
    truth_chain(3, 40, TRUTH_DIRECT, TRUTH_INDIRECT);
}

TRUTH_NOINLINE void throws(int depth)
{
    if (depth == 0)
        throw failure{truth_malloc(72)};
    throws(depth - 1);
}

} // namespace

// It stands in a handler: the exception that it handles is in flight.
int main()
{
    truth_begin();
    plant();
    try {
        throws(3);
    } catch (const failure &) {
        truth_ready();
    }
}
