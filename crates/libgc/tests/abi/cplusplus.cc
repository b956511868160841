// C++ on the library, with what Debian has compiled of it: operators and cleanup of gc_cpp.h in libgccpp, exceptions of
// allocators in libgctba. The containers keep what they hold, and cleanups run once.
#define GC_THREADS
#include <gc/gc_allocator.h>
#include <gc/gc_cpp.h>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <new>
#include <string>
#include <vector>

#define CHECK(what) \
  do { \
    if (!(what)) { \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what); \
      _Exit(1); \
    } \
  } while (0)

#ifdef CLEANUP
static int cleaned;
struct Cleaned : public gc_cleanup {
  explicit Cleaned(int value) : value(value) {}
  ~Cleaned() {
    CHECK(value == 7);
    value = 0;
    cleaned++;
  }
  int value;
};
struct Plain : public gc {
  Plain *next;
  long value;
};

static void __attribute__((noinline)) drop(int count) {
  for (int i = 0; i < count; i++) CHECK((new Cleaned(7))->value == 7);
}

static void classes() {
  Plain *first = nullptr;
  for (long i = 0; i < 100000; i++) {
    Plain *p = i % 2 ? new Plain : new (GC) Plain;
    p->next = i % 1000 ? first : nullptr;
    p->value = i;
    first = p;
  }
  for (Plain *p = first; p->next; p = p->next) CHECK(p->value == p->next->value + 1);
  drop(1000);
  for (int i = 0; i < 10 && cleaned < 900; i++) {
    GC_gcollect();
    GC_invoke_finalizers();
  }
  CHECK(cleaned >= 900 && cleaned <= 1000);
  int before = cleaned;
  Cleaned *own = new Cleaned(7);
  delete own;
  CHECK(cleaned == before + 1);
}
#endif

template <template <typename> class A> static void containers() {
  std::map<int, long, std::less<int>, A<std::pair<const int, long>>> map;
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < 1000; i++) map[i * 7919 % 10007] = i + round;
    if (round % 4 == 0) GC_gcollect();
    for (int i = 0; i < 1000; i++) CHECK(map[i * 7919 % 10007] == i + round);
  }
}

int main() {
  GC_INIT();
  containers<gc_allocator>();
  containers<traceable_allocator>();
  std::vector<std::list<long, gc_allocator<long>> *, gc_allocator<std::list<long, gc_allocator<long>> *>> lists;
  for (long i = 0; i < 200; i++) lists.push_back(new (GC) std::list<long, gc_allocator<long>>(100, i));
  GC_gcollect();
  for (long i = 0; i < 200; i++)
    for (long value : *lists[i]) CHECK(value == i);
  // What cannot be had is an exception, which passes through the library's C.
  GC_set_max_heap_size(64 << 20);
  bool thrown = false;
  try {
    gc_allocator<char>().allocate((size_t)1 << 40);
  } catch (const std::bad_alloc &) {
    thrown = true;
  }
  CHECK(thrown);
#ifdef CLEANUP
  classes();
#endif
  return 0;
}
