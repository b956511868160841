/* A random graph beside a copy of it that the collector does not see: what is reachable there is intact here. */
#include "check.h"

enum { OBJECTS = 4000, FIELDS = 4, ROOTS = 32 };
typedef struct object {
  struct object *field[FIELDS];
  unsigned long id, size;
  unsigned char bytes[];
} object;
/* The copy: numbers, in memory of malloc's. */
static struct entry {
  uintptr_t hidden;
  int field[FIELDS], live, mark;
} * table;
static object *roots[ROOTS];
static int root_number[ROOTS];

static void mark(int n) {
  static int stack[OBJECTS * FIELDS];
  int top = 0;
  if (n) stack[top++] = n;
  while (top) {
    struct entry *e = &table[stack[--top]];
    if (e->mark) continue;
    e->mark = 1;
    for (int f = 0; f < FIELDS; f++)
      if (e->field[f] && !table[e->field[f]].mark) stack[top++] = e->field[f];
  }
}

static void intact(int n) {
  object *o = SHOWN(table[n].hidden);
  CHECK(o->id == (unsigned long)n);
  for (unsigned long i = 0; i < o->size; i += 13) CHECK(o->bytes[i] == (unsigned char)(n + i));
  for (int f = 0; f < FIELDS; f++)
    CHECK(o->field[f] == (table[n].field[f] ? SHOWN(table[table[n].field[f]].hidden) : NULL));
}

int main(int argc, char **argv) {
  unsigned seed = 2463534242u + (argc > 1 ? (unsigned)atoi(argv[1]) * 7919u : 0);
  GC_INIT();
  table = calloc(OBJECTS, sizeof *table);
  for (int step = 0; step < 60000; step++) {
    int r = (int)(next_random(&seed) % ROOTS), n = 0;
    switch (next_random(&seed) % 8) {
    case 0:
    case 1:
    case 2: { /* A new object in a root, which refers to what was there. */
      for (int tries = 0; tries < 50 && !n; tries++) {
        int at = 1 + (int)(next_random(&seed) % (OBJECTS - 1));
        if (!table[at].live) n = at;
      }
      if (!n) break;
      unsigned long size = next_random(&seed) % (next_random(&seed) % 50 ? 300 : 30000);
      object *o = GC_MALLOC(sizeof *o + size);
      for (unsigned long i = 0; i < sizeof *o + size; i++) CHECK(((char *)o)[i] == 0);
      o->id = (unsigned long)n, o->size = size;
      for (unsigned long i = 0; i < size; i++) o->bytes[i] = (unsigned char)(n + i);
      memset(&table[n], 0, sizeof table[n]);
      table[n].hidden = HIDDEN(o), table[n].live = 1;
      o->field[0] = roots[r], table[n].field[0] = root_number[r];
      roots[r] = o, root_number[r] = n;
      break;
    }
    case 3:
    case 4: /* An edge between two that roots refer to. */
      if (root_number[r]) {
        int other = (int)(next_random(&seed) % ROOTS), f = (int)(next_random(&seed) % FIELDS);
        roots[r]->field[f] = roots[other], table[root_number[r]].field[f] = root_number[other];
      }
      break;
    case 5: /* A root moves along an edge. */
      if (root_number[r]) {
        int f = (int)(next_random(&seed) % FIELDS);
        int to = table[root_number[r]].field[f];
        roots[r] = roots[r]->field[f], root_number[r] = to;
      }
      break;
    case 6:
      if (next_random(&seed) % 4 == 0) roots[r] = NULL, root_number[r] = 0;
      break;
    default:
      if (step % 500 == 7) GC_gcollect();
    }
    if (step % 1000 == 999) {
      for (int i = 1; i < OBJECTS; i++) table[i].mark = 0;
      for (int i = 0; i < ROOTS; i++) mark(root_number[i]);
      for (int i = 1; i < OBJECTS; i++) {
        if (table[i].mark) intact(i);
        else table[i].live = 0;
      }
    }
  }
  return 0;
}
