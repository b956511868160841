/* A small Lisp on Heapwright: numbers, symbols, pairs, closures. Symbols are interned in a weak table, so that those that nobody
   mentions any more disappear. Two heaps run the same program, each with a plan of its own.

     cc -O2 lisp.c $(pkg-config --cflags --libs heapwright) -o lisp && ./lisp genimmix marksweep */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "heapwright.h"

/* An object: a word with its kind above the heap's eight bits, then two fields. A number has its value in the first field, a
   symbol its name, in 16 bytes. A closure is a pair of its parameters with its body, and its environment. */
typedef struct { size_t header; hw_object field[2]; } Object;
enum { PAIR, CLOSURE, NUMBER, SYMBOL, BUILTIN };
#define NAMES 64

/* What each heap's runtime has: a stack of roots, a table of symbols, and what went wrong. */
typedef struct {
  hw_heap *heap;
  hw_mutator *mutator;
  hw_object stack[20000];
  size_t top;
  hw_weak *symbols[NAMES];
  hw_object global, quote, lambda, iff, let, nil;
  const char *error;
  size_t collections, violations;
} Lisp;

static int kind(hw_object o) { return (int)(((Object *)o)->header >> 8); }
static hw_object get(hw_object o, int i) { return ((Object *)o)->field[i]; }
static long number(hw_object o) { return (long)get(o, 0); }
static const char *name(hw_object o) { return (const char *)((Object *)o)->field; }

/* ---- what the heap asks ---- */

/* ANCHOR: asks */
static size_t size_of(void *user, hw_object o) { (void)user; return hw_size(o, sizeof(Object)); }
static void scan(void *user, hw_object o, hw_slot_visitor *visit) {
  (void)user;
  if (kind(o) <= CLOSURE) hw_visit(visit, ((Object *)o)->field, 2);
}
static void thread_roots(void *user, void *thread, hw_root_visitor *visit) {
  Lisp *l = thread;
  (void)user;
  hw_root(visit, l->stack, l->top);
}
static void roots(void *user, hw_root_visitor *visit) { hw_root(visit, &((Lisp *)user)->global, 6); }
static uint32_t type_of(void *user, hw_object o) { (void)user; return (uint32_t)kind(o); }
static const char *type_name(void *user, uint32_t t) {
  static const char *names[] = {"pair", "closure", "number", "symbol", "builtin"};
  (void)user;
  return t < 5 ? names[t] : "?";
}
/* ANCHOR_END: asks */
static void collected(void *user, const hw_collection *c) { ((Lisp *)user)->collections += c->number > 0; }
static void violation(void *user, const char *what, hw_object o, size_t word) {
  (void)o; (void)word;
  fprintf(stderr, "broken heap: %s\n", what);
  ((Lisp *)user)->violations++;
}

/* ---- objects: whatever is held over an allocation is on the stack ---- */

static size_t push(Lisp *l, hw_object o) {
  if (l->top == 20000) { l->error = "stack overflow"; return 0; }
  l->stack[l->top] = o;
  return l->top++;
}
/* ANCHOR: objects */
static hw_object new_object(Lisp *l, int k) {
  hw_object o;
  if (hw_alloc(l->mutator, sizeof(Object), &o) != HW_OK) { l->error = hw_last_error(); return l->nil; }
  ((Object *)o)->header |= (size_t)k << 8;
  return o;
}
static hw_object pair(Lisp *l, int k, hw_object a, hw_object b) {
  size_t at = push(l, a);
  push(l, b);
  hw_object o = new_object(l, k);
  if (o != l->nil) {
    hw_write(l->mutator, o, &((Object *)o)->field[0], l->stack[at]);
    hw_write(l->mutator, o, &((Object *)o)->field[1], l->stack[at + 1]);
  }
  l->top = at;
  return o;
}
/* ANCHOR_END: objects */
static hw_object make_number(Lisp *l, long n) {
  hw_object o = new_object(l, NUMBER);
  if (o != l->nil) ((Object *)o)->field[0] = (hw_object)n;
  return o;
}
static hw_object symbol(Lisp *l, const char *text) {
  int free_place = -1;
  for (int i = 0; i < NAMES; i++) {
    hw_object o = hw_weak_get(l->symbols[i], l->mutator);
    if (o != NULL && strcmp(name(o), text) == 0) return o;
    if (o == NULL) free_place = i;
  }
  if (free_place < 0) { l->error = "too many symbols"; return l->nil; }
  hw_object o = new_object(l, SYMBOL);
  if (o == l->nil) return o;
  strncpy((char *)((Object *)o)->field, text, 15);
  hw_weak_free(l->symbols[free_place]);
  if (hw_weak_new(l->mutator, o, HW_WEAK, &l->symbols[free_place]) != HW_OK) l->error = hw_last_error();
  return o;
}

/* ---- reading ---- */

static hw_object read(Lisp *l, const char **text) {
  while (isspace((unsigned char)**text)) ++*text;
  if (**text == '(') {
    size_t base = l->top;
    ++*text;
    for (;;) {
      while (isspace((unsigned char)**text)) ++*text;
      if (**text == ')' || **text == 0) break;
      push(l, read(l, text));
    }
    if (**text == ')') ++*text;
    hw_object list = l->nil;
    while (l->top > base) {
      hw_object o = l->stack[--l->top];
      list = pair(l, PAIR, o, list);
    }
    return list;
  }
  char word[16];
  size_t n = 0;
  for (; **text && !isspace((unsigned char)**text) && **text != '(' && **text != ')'; ++*text)
    if (n < 15) word[n++] = **text;
  word[n] = 0;
  return isdigit((unsigned char)word[0]) || (word[0] == '-' && word[1]) ? make_number(l, atol(word)) : symbol(l, word);
}

/* ---- evaluation ---- */

static hw_object eval(Lisp *l, hw_object form, hw_object environment);
static hw_object look(Lisp *l, hw_object environment, hw_object s) {
  for (hw_object e = environment; e != l->nil; e = get(e, 1))
    if (get(get(e, 0), 0) == s) return get(get(e, 0), 1);
  for (hw_object e = l->global; e != l->nil; e = get(e, 1))
    if (get(get(e, 0), 0) == s) return get(get(e, 0), 1);
  l->error = "unbound symbol";
  return l->nil;
}
static hw_object builtin(Lisp *l, char op, hw_object *a) {
  switch (op) {
    case '+': return make_number(l, number(a[0]) + number(a[1]));
    case '-': return make_number(l, number(a[0]) - number(a[1]));
    case '*': return make_number(l, number(a[0]) * number(a[1]));
    case '<': return number(a[0]) < number(a[1]) ? l->quote : l->nil;
    case 'c': return pair(l, PAIR, a[0], a[1]);
    case 'a': return get(a[0], 0);
    case 'd': return get(a[0], 1);
    default: return a[0] == l->nil ? l->quote : l->nil;
  }
}
/* Calls what is at `at` on the stack with what follows it. */
static hw_object call(Lisp *l, size_t at) {
  hw_object f = l->stack[at];
  if (kind(f) == BUILTIN) return builtin(l, (char)number(f), &l->stack[at + 1]);
  if (kind(f) != CLOSURE) { l->error = "not a function"; return l->nil; }
  size_t environment = push(l, get(f, 1)), parameters = push(l, get(get(f, 0), 0));
  for (size_t i = at + 1; i < environment && l->stack[parameters] != l->nil; i++) {
    hw_object bound = pair(l, PAIR, get(l->stack[parameters], 0), l->stack[i]);
    l->stack[environment] = pair(l, PAIR, bound, l->stack[environment]);
    l->stack[parameters] = get(l->stack[parameters], 1);
  }
  return eval(l, get(get(l->stack[at], 0), 1), l->stack[environment]);
}
static hw_object eval(Lisp *l, hw_object form, hw_object environment) {
  size_t at = push(l, form), result, base;
  push(l, environment);
  hw_poll(l->mutator);
  hw_object value = l->nil;
  form = l->stack[at];
  if (l->error || form == l->nil) goto done;
  if (kind(form) == NUMBER) { value = form; goto done; }
  if (kind(form) == SYMBOL) { value = look(l, l->stack[at + 1], form); goto done; }
  hw_object head = get(form, 0), rest = get(form, 1);
  if (head == l->quote) { value = get(rest, 0); goto done; }
  if (head == l->lambda) {
    value = pair(l, PAIR, get(rest, 0), get(get(rest, 1), 0));
    value = pair(l, CLOSURE, value, l->stack[at + 1]);
    goto done;
  }
  if (head == l->iff) {
    int is = eval(l, get(rest, 0), l->stack[at + 1]) != l->nil;
    rest = get(get(l->stack[at], 1), 1);
    value = eval(l, get(is ? rest : get(rest, 1), 0), l->stack[at + 1]);
    goto done;
  }
  if (head == l->let) {
    result = push(l, eval(l, get(get(rest, 1), 0), l->stack[at + 1]));
    value = pair(l, PAIR, get(get(l->stack[at], 1), 0), l->stack[result]);
    l->global = pair(l, PAIR, value, l->global);
    value = l->stack[result];
    goto done;
  }
  base = push(l, rest);
  l->stack[base] = form;
  result = push(l, rest);
  /* From `base` on: the function and its arguments; `at` is where the rest of the form is kept. */
  l->top = base;
  for (l->stack[at] = form; l->stack[at] != l->nil && !l->error; l->stack[at] = get(l->stack[at], 1))
    push(l, eval(l, get(l->stack[at], 0), l->stack[at + 1]));
  if (!l->error) value = call(l, base);
done:
  l->top = at;
  return value;
}

/* ---- a heap with its program ---- */

static void print(hw_object o, hw_object nil) {
  if (o == nil) printf("()");
  else if (kind(o) == NUMBER) printf("%ld", number(o));
  else if (kind(o) == SYMBOL) printf("%s", name(o));
  else if (kind(o) == PAIR) {
    for (printf("("); o != nil; o = get(o, 1)) { print(get(o, 0), nil); if (get(o, 1) != nil) printf(" "); }
    printf(")");
  } else printf("<%s>", type_name(NULL, (uint32_t)kind(o)));
}
/* ANCHOR: heap */
static int start(Lisp *l, const char *plan) {
  hw_vm vm = {
      .struct_size = sizeof(hw_vm), .abi_version = HW_ABI_VERSION, .user = l,
      .size = size_of, .scan = scan, .thread_roots = thread_roots, .roots = roots,
      .type_of = type_of, .type_name = type_name, .collected = collected, .violation = violation,
  };
  hw_options *options = hw_options_new();
  if (hw_options_from_environment(options) != HW_OK || hw_options_set(options, "plan", plan) != HW_OK ||
      hw_options_set(options, "max", "4m") != HW_OK || hw_heap_new(&vm, options, &l->heap) != HW_OK ||
      hw_attach(l->heap, l, &l->mutator) != HW_OK) {
    fprintf(stderr, "lisp: %s\n", hw_last_error());
    hw_options_free(options);
    return 1;
  }
  hw_options_free(options);
  /* ANCHOR_END: heap */
  l->nil = l->global = new_object(l, PAIR);
  l->global = l->nil;
  l->quote = symbol(l, "quote"), l->lambda = symbol(l, "lambda"), l->iff = symbol(l, "if"), l->let = symbol(l, "define");
  static const char *const names[] = {"+", "-", "*", "<", "cons", "a-first", "d-rest", "null"};
  for (int i = 0; i < 8; i++) {
    size_t at = push(l, symbol(l, names[i]));
    hw_object f = new_object(l, BUILTIN);
    ((Object *)f)->field[0] = (hw_object)(size_t)names[i][0];
    l->global = pair(l, PAIR, pair(l, PAIR, l->stack[at], f), l->global);
    l->top = at;
  }
  return 0;
}
static const char *const program[] = {
  "(define fib (lambda (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2))))))",
  "(fib 24)",
  "(define range (lambda (n) (if (< 0 n) (cons n (range (- n 1))) (quote ()))))",
  "(define sum (lambda (l) (if (null l) 0 (+ (a-first l) (sum (d-rest l))))))",
  "(sum (range 500))",
  "(quote (forgotten symbols))",
  "(range 8)",
};
int main(int count, char **words) {
  Lisp *two[2] = {calloc(1, sizeof(Lisp)), calloc(1, sizeof(Lisp))};
  int bad = 0;
  for (int i = 0; i < 2; i++)
    if (start(two[i], count > i + 1 ? words[i + 1] : i ? "marksweep" : "genimmix")) return 1;
  for (size_t p = 0; p < sizeof program / sizeof *program; p++)
    for (int i = 0; i < 2; i++) {
      Lisp *l = two[i];
      const char *text = program[p];
      hw_object value = eval(l, read(l, &text), l->nil);
      printf("%d: ", i + 1);
      if (l->error) printf("error: %s\n", l->error), bad = 1, l->error = NULL;
      else print(value, l->nil), printf("\n");
      l->top = 0;
    }
  for (int i = 0; i < 2; i++) {
    Lisp *l = two[i];
    int alive = 0;
    hw_collect(l->mutator);
    hw_collect(l->mutator);
    for (int s = 0; s < NAMES; s++) alive += !hw_weak_is_cleared(l->symbols[s]), hw_weak_free(l->symbols[s]);
    printf("%d: %d symbols are left, %s\n", i + 1, alive, l->collections > 2 ? "many collections" : "few collections");
    bad |= l->violations != 0;
    bad |= hw_detach(l->mutator) != HW_OK || hw_heap_free(l->heap) != HW_OK;
    free(l);
  }
  return bad;
}
