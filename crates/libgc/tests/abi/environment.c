/* Variables of the environment: the one that the first argument names is set to the second, and the program looks at what follows
   from it. Without arguments it allocates, collects, and prints by all three functions: for who reads the files. */
#include "check.h"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* Exported, and in no header that is installed. */
void GC_printf(const char *, ...);
void GC_err_printf(const char *, ...);
void GC_log_printf(const char *, ...);

static void *volatile sink;

/* Allocates so many megabytes, which die: how many collections that took. */
static size_t churn(size_t megabytes) {
  size_t before = GC_get_gc_no();
  for (size_t i = 0; i < megabytes << 10; i++) {
    sink = GC_MALLOC(1024);
    CHECK(sink != NULL);
  }
  return GC_get_gc_no() - before;
}

/* Megabytes until null, of what lives. */
static size_t fill(void) {
  static void **list;
  void **p;
  size_t bytes = 0;
  while (bytes < (size_t)200 << 20 && (p = GC_MALLOC(10000)) != NULL) {
    *p = list;
    list = p;
    bytes += 10000;
  }
  return bytes >> 20;
}

int main(int n, char **words) {
  if (n == 1) {
    GC_INIT();
    GC_gcollect();
    GC_printf("to %s\n", "output");
    GC_err_printf("to %s\n", "errors");
    GC_log_printf("to %s\n", "log");
    GC_dump();
    return 0;
  }
  const char *name = words[1];
  long value = n > 2 ? atol(words[2]) : 0;
  GC_INIT();
  if (!strcmp(name, "GC_INITIAL_HEAP_SIZE")) {
    CHECK(churn(value / 2) == 0);
    /* Memory that was never used may count as not mapped. */
    CHECK(GC_get_heap_size() + GC_get_unmapped_bytes() >= (size_t)value << 20);
  } else if (!strcmp(name, "GC_MAXIMUM_HEAP_SIZE")) {
    size_t got = fill();
    CHECK(got > value / 2 && got <= value);
  } else if (!strcmp(name, "GC_DONT_GC")) {
    CHECK(churn(64) == 0);
  } else if (!strcmp(name, "GC_MARKERS") || !strcmp(name, "GC_NPROCS")) {
    GC_allow_register_threads();
    CHECK(GC_get_parallel() == value - 1);
  } else if (!strcmp(name, "GC_FREE_SPACE_DIVISOR")) {
    size_t kept = fill();
    size_t few = GC_get_gc_no();
    CHECK(GC_get_free_space_divisor() == value && kept >= 190);
    printf("%zu\n", few);
  } else if (!strcmp(name, "GC_FULL_FREQUENCY")) {
    CHECK(GC_get_full_freq() == value);
  } else if (!strcmp(name, "GC_PAUSE_TIME_TARGET")) {
    CHECK(GC_get_time_limit() == value);
  } else if (!strcmp(name, "GC_USE_ENTIRE_HEAP")) {
    CHECK(GC_use_entire_heap == (value != 0));
  } else if (!strcmp(name, "GC_FORCE_UNMAP_ON_GCOLLECT")) {
    CHECK(GC_get_force_unmap_on_gcollect() == (value != 0));
  } else if (!strcmp(name, "GC_ALL_INTERIOR_POINTERS")) {
    CHECK(GC_get_all_interior_pointers() == 1);
  } else if (!strcmp(name, "GC_FIND_LEAK")) {
    CHECK(GC_get_find_leak() == 1);
  } else if (!strcmp(name, "GC_ENABLE_INCREMENTAL") || !strcmp(name, "GC_RETRY_SIGNALS") || !strcmp(name, "GC_TRACE")) {
    /* Whatever it does, the program lives. */
    churn(64);
  } else {
    CHECK(!"a variable that this program knows");
  }
  return 0;
}
