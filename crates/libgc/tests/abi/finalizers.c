/* Finalizers of every order, and links that vanish. */
#include "check.h"

static int ran[8], order[64], count, notified;
static void *saved;
static void finalizer(void *object, void *data) {
  long which = (long)(intptr_t)data;
  (void)object;
  ran[which]++;
  if (count < 64) order[count++] = (int)which;
}
static void resurrect(void *object, void *data) {
  ran[(intptr_t)data]++;
  saved = object;
}
static void notify(void) { notified++; }

static void __attribute__((noinline)) chain(void) {
  /* 1 refers to 2, which refers to 3: ordered finalizers run one per collection, from the top. */
  void **a = GC_MALLOC(32), **b = GC_MALLOC(32), **c = GC_MALLOC(32);
  *a = b, *b = c;
  GC_register_finalizer(c, finalizer, (void *)3, NULL, NULL);
  GC_register_finalizer(a, finalizer, (void *)1, NULL, NULL);
  GC_register_finalizer(b, finalizer, (void *)2, NULL, NULL);
}
static void __attribute__((noinline)) cycles(void) {
  void **a = GC_MALLOC(32), **b = GC_MALLOC(32);
  *a = b, *b = a;
  GC_register_finalizer(a, finalizer, (void *)4, NULL, NULL);
  a = GC_MALLOC(32), b = GC_MALLOC(32);
  *a = b, *b = a;
  GC_register_finalizer_no_order(a, finalizer, (void *)5, NULL, NULL);
  a = GC_MALLOC(32);
  *a = a;
  GC_register_finalizer_ignore_self(a, finalizer, (void *)6, NULL, NULL);
}
static void __attribute__((noinline)) returning(void) {
  char *p = GC_MALLOC(32);
  strcpy(p, "back");
  GC_register_finalizer(p, resurrect, (void *)7, NULL, NULL);
}
static void __attribute__((noinline)) replaced(void) {
  GC_finalization_proc old;
  void *data, *p = GC_MALLOC(32);
  GC_register_finalizer(p, finalizer, (void *)0, &old, &data);
  CHECK(old == NULL && data == NULL);
  GC_register_finalizer(p, resurrect, (void *)1, &old, &data);
  CHECK(old == finalizer && data == (void *)0);
  GC_register_finalizer(p, NULL, NULL, &old, &data);
  CHECK(old == resurrect && data == (void *)1);
}

/* Pointers with a tag in their low bits, as ECL has to conses: the finalizer gets the tag, too. */
static int tagged_ran, tagged_wrong;
static void tagged_finalizer(void *object, void *data) {
  (void)data;
  tagged_ran++;
  tagged_wrong += (uintptr_t)object % 16 != 1;
}
static void **tagged_links[20];
static void *tagged_kept[20];
static void __attribute__((noinline)) make_tagged(void) {
  for (int i = 0; i < 20; i++) {
    char *p = (char *)GC_MALLOC(16) + 1;
    GC_register_finalizer_no_order(p, tagged_finalizer, NULL, NULL, NULL);
    *(tagged_links[i] = GC_malloc_atomic_uncollectable(16)) = (void *)HIDDEN(p);
    CHECK(GC_general_register_disappearing_link(tagged_links[i], p) == GC_SUCCESS);
    tagged_kept[i] = i % 2 ? p : NULL;
  }
}

static void *link_of(void *target, int kind) {
  void **link = GC_MALLOC_ATOMIC(16);
  *link = (void *)HIDDEN(target);
  int result = kind ? GC_REGISTER_LONG_LINK(link, target) : GC_GENERAL_REGISTER_DISAPPEARING_LINK(link, target);
  CHECK(result == GC_SUCCESS);
  result = kind ? GC_REGISTER_LONG_LINK(link, target) : GC_GENERAL_REGISTER_DISAPPEARING_LINK(link, target);
  CHECK(result == GC_DUPLICATE);
  return link;
}
static void ***links;
static void *kept[10];
static void __attribute__((noinline)) make_links(void) {
  links = GC_MALLOC(20 * sizeof *links);
  for (int i = 0; i < 10; i++) {
    void *target = GC_MALLOC(64);
    if (i % 2) kept[i] = target;
    links[i] = link_of(target, 0), links[10 + i] = link_of(target, 1);
  }
}

int main(void) {
  GC_INIT();
  GC_set_finalize_on_demand(1);
  GC_set_finalizer_notifier(notify);
  CHECK(GC_get_finalize_on_demand() == 1 && GC_get_finalizer_notifier() == notify);
  /* Enough of each that a stale word on the stack does not decide. */
  for (int i = 0; i < 8; i++) chain();
  collect();
  CHECK(GC_should_invoke_finalizers() && notified >= 1 && ran[1] == 0);
  for (int i = 0; i < 8; i++) collect(), GC_invoke_finalizers();
  CHECK(ran[1] >= 7 && ran[2] >= 7 && ran[3] >= 7 && ran[1] <= 8 && ran[2] <= 8 && ran[3] <= 8);
  CHECK(!GC_should_invoke_finalizers());
  for (int i = 0, first[4] = {0}; i < count; i++) {
    first[order[i]]++;
    CHECK(first[1] >= first[2] && first[2] >= first[3]);
  }
  GC_set_finalize_on_demand(0);
  for (int i = 0; i < 8; i++) cycles();
  collect();
  CHECK(ran[4] == 0 && ran[5] >= 7 && ran[6] >= 7);
  for (int i = 0; i < 4; i++) returning();
  collect();
  CHECK(ran[7] >= 3 && saved && !strcmp(saved, "back"));
  int before = ran[7];
  saved = NULL;
  collect();
  CHECK(ran[7] <= 4 && ran[7] >= before);
  memset(ran, 0, sizeof ran);
  replaced();
  collect();
  CHECK(ran[0] == 0 && ran[1] == 0);

  make_tagged();
  collect();
  CHECK(tagged_ran >= 8 && tagged_ran <= 10 && tagged_wrong == 0);
  for (int i = 1; i < 20; i += 2) CHECK(*tagged_links[i] == (void *)HIDDEN(tagged_kept[i]));
  memset(tagged_kept, 0, sizeof tagged_kept);

  make_links();
  collect();
  int vanished = 0;
  for (int i = 0; i < 10; i++) {
    if (i % 2) {
      CHECK(*links[i] == (void *)HIDDEN(kept[i]) && *links[10 + i] == (void *)HIDDEN(kept[i]));
    } else {
      vanished += *links[i] == NULL && *links[10 + i] == NULL;
    }
  }
  CHECK(vanished >= 4);
  CHECK(GC_unregister_disappearing_link((void **)links[1]) == 1);
  CHECK(GC_unregister_disappearing_link((void **)links[1]) == 0);
  CHECK(GC_unregister_long_link((void **)links[11]) == 1);
  void **moved = GC_MALLOC_ATOMIC(16);
  *moved = *links[3];
  CHECK(GC_move_disappearing_link((void **)links[3], moved) == GC_SUCCESS);
  CHECK(GC_move_disappearing_link((void **)links[3], moved) == GC_NOT_FOUND);
  memset(kept, 0, sizeof kept);
  collect();
  CHECK(*links[1] != NULL);
  return 0;
}
