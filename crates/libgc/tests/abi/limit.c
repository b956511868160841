/* The heap's limit: the client's function, then null; and after the program lets go, all is well again. */
#include "check.h"

static int refused;
static void *refuse(size_t bytes) {
  CHECK(bytes > 0);
  refused++;
  return NULL;
}

int main(void) {
  GC_INIT();
  GC_set_oom_fn(refuse);
  GC_set_max_heap_size(32 << 20);
  for (int round = 0; round < 4; round++) {
    static void **list;
    size_t bytes = round % 2 ? 20000 : 1000, count = 0;
    refused = 0;
    void **p;
    while ((p = GC_MALLOC(bytes)) != NULL) {
      *p = list;
      list = p;
      CHECK(++count * bytes <= (size_t)40 << 20);
    }
    CHECK(refused == 1 && count * bytes > (size_t)16 << 20);
    CHECK(GC_get_heap_size() <= (size_t)33 << 20);
    CHECK(GC_MALLOC(64 << 20) == NULL && refused == 2);
    p = NULL;
    list = NULL;
    collect();
    for (int i = 0; i < 100000; i++) CHECK(GC_MALLOC(1000) != NULL);
  }
  return 0;
}
