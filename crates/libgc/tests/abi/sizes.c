/* Sizes: nothing, everything between, and more than there is. */
#include "check.h"

static int refused;
static void *refuse(size_t bytes) {
  (void)bytes;
  refused++;
  return NULL;
}

static int is_zero(const char *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (p[i]) return 0;
  return 1;
}

int main(void) {
  GC_INIT();
  char *a = GC_MALLOC(0), *b = GC_MALLOC(0);
  CHECK(a && b && a != b);
  static char *kept[5001];
  for (size_t n = 1; n <= 5000; n++) {
    char *p = n % 3 ? GC_MALLOC(n) : GC_MALLOC_UNCOLLECTABLE(n);
    CHECK(p && (uintptr_t)p % 16 == 0 && GC_size(p) >= n && is_zero(p, n));
    memset(p, (int)n, n);
    kept[n] = p;
    char *q = GC_MALLOC_ATOMIC(n);
    CHECK(q && (uintptr_t)q % 16 == 0 && GC_size(q) >= n);
    memset(q, 0xff, n);
  }
  collect();
  for (size_t n = 1; n <= 5000; n++) {
    for (size_t i = 0; i < n; i++) CHECK(kept[n][i] == (char)n);
    CHECK(GC_base(kept[n] + n - 1) == kept[n]);
    if (n % 3 == 0) GC_FREE(kept[n]);
    kept[n] = NULL;
  }
  for (size_t n = 4000; n <= (size_t)16 << 20; n = n * 3 / 2) {
    char *p = GC_MALLOC(n), *q = GC_MALLOC_IGNORE_OFF_PAGE(n), *r = GC_MALLOC_ATOMIC_IGNORE_OFF_PAGE(n);
    CHECK(p && q && r && is_zero(p, n) && is_zero(q, n) && GC_size(p) >= n);
    memset(p, 1, n), memset(q, 2, n), memset(r, 3, n);
    CHECK(p[n - 1] == 1 && q[0] == 2 && r[n / 2] == 3);
  }
  CHECK(!strcmp(GC_STRDUP("words"), "words") && !strcmp(GC_STRNDUP("words", 3), "wor"));
  CHECK(GC_strdup(NULL) == NULL);

  GC_set_oom_fn(refuse);
  CHECK(GC_get_oom_fn() == refuse);
  const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 15, SIZE_MAX - 16, SIZE_MAX - 4096,
                           (size_t)1 << 63, ((size_t)1 << 63) - 1, (size_t)1 << 47, (size_t)1 << 60};
  int want = 0;
  for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
    size_t n = absurd[i];
    CHECK(GC_malloc(n) == NULL && GC_malloc_atomic(n) == NULL && GC_malloc_uncollectable(n) == NULL);
    CHECK(GC_malloc_ignore_off_page(n) == NULL && GC_memalign(64, n) == NULL);
    want += 5;
    CHECK(refused >= want);
    char *small = GC_MALLOC(100);
    strcpy(small, "still here");
    CHECK(GC_realloc(small, n) == NULL && !strcmp(small, "still here"));
  }
  void *p = &p;
  CHECK(GC_posix_memalign(&p, 24, 10) == EINVAL && GC_posix_memalign(&p, 4, 10) == EINVAL && p == &p);
  for (size_t align = 8; align <= (size_t)1 << 20; align *= 2) {
    CHECK(GC_posix_memalign(&p, align, 100) == 0 && (uintptr_t)p % align == 0);
    CHECK((uintptr_t)GC_memalign(align, 10000) % align == 0);
  }
  return 0;
}
