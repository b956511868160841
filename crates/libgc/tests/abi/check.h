/* What the programs of this directory share. Each is an ordinary client of the interface; it ends with 0 if all holds. */
#ifndef CHECK_H
#define CHECK_H
#define _GNU_SOURCE
#ifndef GC_THREADS
#define GC_THREADS
#endif
#include <errno.h>
#include <gc/gc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)                                                                                  \
  do {                                                                                               \
    if (!(what)) {                                                                                   \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                      \
      _exit(1);                                                                                      \
    }                                                                                                \
  } while (0)

/* A word that the collector does not take for a pointer. */
#define HIDDEN(p) (~(uintptr_t)(p))
#define SHOWN(w) ((void *)~(uintptr_t)(w))

/* Overwrites what calls have left on the stack below. */
static void __attribute__((noinline, unused)) wipe(void) {
  volatile char room[16384];
  for (size_t i = 0; i < sizeof room; i++) room[i] = 0;
}

static void __attribute__((unused)) collect(void) {
  for (int i = 0; i < 4; i++) {
    wipe();
    GC_gcollect();
  }
}

static unsigned __attribute__((unused)) next_random(unsigned *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 17;
  *seed ^= *seed << 5;
  return *seed;
}
#endif
