/* Code to be named: templates, lambdas, local classes, anonymous namespaces, unwinding. */
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace outer
{
namespace
{
struct Local {
    int value;
    Local(int x) : value(x)
    {
    }
    ~Local()
    {
        std::puts("gone");
    }
    int twice() const
    {
        return value * 2;
    }
};

template <class T> T add(T a, T b)
{
    struct Inner {
        T held;
        T get()
        {
            return held * 2;
        }
    } inner{a};
    return inner.get() + b;
}
} // namespace

int use(int n)
{
    std::vector<Local> locals;
    std::map<std::string, int> counts;
    for (int i = 0; i < n; i++) {
        locals.emplace_back(i);
        counts[std::to_string(i)] += add(i, n);
    }
    std::sort(locals.begin(), locals.end(),
              [&](const Local &a, const Local &b) { return a.twice() * n < b.twice(); });
    std::function<int(int)> count = [&](int k) {
        return int(counts.count(std::to_string(k)) + add<double>(k, 2.5));
    };
    return count(n) + int(locals.size() + counts.size());
}
} // namespace outer

int main(int count, char **)
{
    return outer::use(count) + count;
}
