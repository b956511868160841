/* What a test of the C interface expects; what is not so is said, and counted. */
#ifndef EXPECT_H
#define EXPECT_H
#include <stdio.h>
#include "heapwright.h"

static int failures;
static void expect(int is_so, int line, const char *what) {
  if (is_so) return;
  printf("line %d: not so: %s (%s)\n", line, what, hw_last_error());
  failures++;
}
#define EXPECT(what) expect((what) != 0, __LINE__, #what)

#endif
