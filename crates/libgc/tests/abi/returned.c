/* What the process occupies after nine tenths of what lived died: eight tenths of that are gone five seconds after a collection,
   though the program sleeps, and at once after GC_gcollect_and_unmap. */
#include "check.h"

#define LISTS 1000
#define NODES 1000

struct node {
  struct node *next;
  long filler[11];
};

static struct node *lists[LISTS];

static long resident(void) {
  long size = 0, pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  CHECK(f != NULL && fscanf(f, "%ld %ld", &size, &pages) == 2);
  fclose(f);
  return pages * sysconf(_SC_PAGESIZE);
}

static void __attribute__((noinline)) fill(void) {
  for (int i = 0; i < LISTS; i++)
    for (int n = 0; n < NODES; n++) {
      struct node *node = GC_malloc(sizeof *node);
      CHECK(node != NULL);
      node->next = lists[i];
      lists[i] = node;
    }
}

/* The last lists were allocated last, so blocks are all dead or all alive. */
static void __attribute__((noinline)) drop(void) {
  for (int i = 0; i < LISTS * 9 / 10; i++)
    lists[i] = NULL;
}

int main(void) {
  const long dead = (long)LISTS * NODES * sizeof(struct node) * 9 / 10;
  GC_INIT();
  for (int round = 0; round < 2; round++) {
    fill();
    GC_gcollect();
    long before = resident();
    drop();
    if (round == 0) {
      GC_gcollect();
      /* A signal does not end the sleep: nobody is stopped. */
      CHECK(sleep(5) == 0);
    } else {
      GC_gcollect_and_unmap();
    }
    long gone = before - resident();
    printf("%ld of %ld MB that died went back\n", gone / 1000000, dead / 1000000);
    CHECK(gone >= dead / 10 * 8);
    for (int i = LISTS * 9 / 10; i < LISTS; i++) {
      int count = 0;
      for (struct node *n = lists[i]; n != NULL; n = n->next)
        count++;
      CHECK(count == NODES);
      lists[i] = NULL;
    }
  }
  return 0;
}
