/* Freeing and growing: what is right works, what is wrong does no harm. */
#include "check.h"

static int global;

int main(void) {
  GC_INIT();
  int local;
  void *foreign = malloc(100);
  char *p = GC_MALLOC(100), *big = GC_MALLOC(100000);
  strcpy(p, "kept"), strcpy(big, "kept too");
  /* The stock library leaves these undefined; here they are ignored. */
  GC_free(NULL), GC_free(p + 16), GC_free(big + 4096), GC_free(p + 1);
  GC_free(&local), GC_free(&global), GC_free(foreign), GC_free((void *)~(uintptr_t)15);
  CHECK(!strcmp(p, "kept") && !strcmp(big, "kept too"));
  CHECK(GC_base(p + 50) == p && GC_base(big + 99999) == big && GC_base(big + 5000) == big);
  CHECK(GC_base(&local) == NULL && GC_base(&global) == NULL && GC_base(foreign) == NULL && GC_base(NULL) == NULL);
  CHECK(GC_is_heap_ptr(p) && GC_is_heap_ptr(big + 70000) && !GC_is_heap_ptr(&global) && !GC_is_heap_ptr(foreign));
  GC_free(p), GC_free(p), GC_free(big), GC_free(big);

  /* What was freed twice is handed out once. */
  enum { N = 3000 };
  static char *cells[N];
  for (int i = 0; i < N; i++) cells[i] = GC_MALLOC(48), *(int *)cells[i] = i;
  for (int i = 0; i < N; i += 2) GC_free(cells[i]), GC_free(cells[i]), cells[i] = NULL;
  for (int i = 0; i < N; i += 2) {
    cells[i] = GC_MALLOC(48);
    for (int word = 0; word < 6; word++) CHECK(((long *)cells[i])[word] == 0);
    *(int *)cells[i] = i;
  }
  collect();
  for (int i = 0; i < N; i++) CHECK(*(int *)cells[i] == i);

  CHECK((p = GC_REALLOC(NULL, 40)) != NULL);
  strcpy(p, "contents");
  for (size_t n = 40; n < 3000000; n = n * 5 / 3) {
    CHECK((p = GC_REALLOC(p, n)) && !strcmp(p, "contents") && GC_size(p) >= n);
    for (size_t i = 9; i < n; i++) CHECK(p[i] == 0);
  }
  for (size_t n = 2000000; n > 20; n /= 3) CHECK((p = GC_REALLOC(p, n)) && !strcmp(p, "contents"));
  CHECK(GC_REALLOC(p, 0) == NULL);

  /* An atomic object stays one, an uncollectable one stays alive. */
  void **atomic = GC_MALLOC_ATOMIC(64);
  uintptr_t hidden;
  {
    void *target = GC_MALLOC(32);
    hidden = HIDDEN(target);
    CHECK(GC_general_register_disappearing_link((void **)malloc(8), target) == GC_SUCCESS);
    target = NULL;
  }
  (void)hidden;
  CHECK((atomic = GC_REALLOC(atomic, 6400)) != NULL);
  char *forever = GC_MALLOC_UNCOLLECTABLE(64);
  strcpy(forever, "for ever");
  forever = GC_REALLOC(forever, 500);
  uintptr_t word = HIDDEN(forever);
  forever = NULL;
  collect();
  for (int i = 0; i < 20000; i++) memset(GC_MALLOC(500), 0x55, 500);
  CHECK(!strcmp(SHOWN(word), "for ever"));
  GC_FREE(SHOWN(word));
  free(foreign);
  return 0;
}
