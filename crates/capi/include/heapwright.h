/*
 * Heapwright: memory managers for language runtimes.
 *
 * Rules for all functions:
 * - Pointers to heaps, mutators, options, handles and maps come from this library. Null is an error and never a crash, except in the inline
 *   functions, which take an attached mutator or one that was detached while its heap is there.
 * - What is called with a mutator may collect if it says so; then objects move, and references are good only where the heap finds them: in
 *   objects, in roots, in handles. Those that may are hw_alloc*, hw_poll, hw_collect, hw_outside, hw_set_limits, hw_for_each_object.
 * - A mutator is used by one thread at a time. Heaps, and handles that say "any thread", by any.
 * - Nothing aborts or prints. hw_last_error() has a sentence for what went wrong.
 */


#ifndef HEAPWRIGHT_H
#define HEAPWRIGHT_H

/* Generated from crates/capi by cbindgen: do not edit. See docs/c-api.md. */

#include <stddef.h>
#include <stdint.h>

/**
 * In `hw_vm.flags`: the heap knows which addresses are objects. Needed for `hw_for_each_object`, `hw_object_at`, and roots that are pinned or
 * ambiguous. Objects are then aligned to 16 bytes, and plans that bump allocate by a call.
 */
#define HW_OBJECT_MAP 1

/**
 * The interface that a program was compiled for: the major number times 65536 plus the minor one. A library takes programs of its own major
 * number and of no higher minor one.
 */
#define HW_ABI_VERSION 1

/**
 * For `hw_collect`: what the plan thinks is due.
 */
#define HW_COLLECT_YOUNG 0

/**
 * For `hw_collect`: everything.
 */
#define HW_COLLECT_FULL 1

/**
 * For `hw_collect`: begins a collection that goes on while mutators run, in plans that have such; in others as `HW_COLLECT_YOUNG`.
 */
#define HW_COLLECT_BACKGROUND 2

/**
 * For `hw_collect`: everything, and free memory goes back to the system.
 */
#define HW_COLLECT_RELEASE 3

/**
 * For `hw_weak_create`: held until memory is wanted.
 */
#define HW_SOFT 0

/**
 * For `hw_weak_create`: not held, and cleared before finalizers run.
 */
#define HW_WEAK 1

/**
 * For `hw_weak_create`: not held, cleared when no finalizer reaches the object any more; never gives the object.
 */
#define HW_PHANTOM 2

/**
 * For `hw_add_finalizer`: all that die together are finalized together, as in Java.
 */
#define HW_TOGETHER 0

/**
 * For `hw_add_finalizer`: one after the other; what one reaches waits for it.
 */
#define HW_IN_ORDER 1

/**
 * What a function answers. `HW_OK` is 0; after anything else `hw_last_error()` has a sentence.
 */
typedef enum hw_status {
  /**
   * It was done.
   */
  HW_OK = 0,
  /**
   * A null pointer, or a value that is not allowed. Nothing was changed.
   */
  HW_ERROR_ARGUMENT = 1,
  /**
   * A callback that must be there is null. No heap was made.
   */
  HW_ERROR_CALLBACK = 2,
  /**
   * The program was compiled with the header of another version than the library's.
   */
  HW_ERROR_VERSION = 3,
  /**
   * There is no such option, or it does not take the value.
   */
  HW_ERROR_OPTION = 4,
  /**
   * The heap is full, also after collecting. It is unharmed.
   */
  HW_ERROR_MEMORY = 5,
  /**
   * The operating system refused memory, addresses or a thread.
   */
  HW_ERROR_SYSTEM = 6,
  /**
   * The plan, or the heap as it was made, cannot do this.
   */
  HW_ERROR_UNSUPPORTED = 7,
  /**
   * The mutator is detached already.
   */
  HW_ERROR_DETACHED = 8,
  /**
   * Not now: mutators are attached, or the call came from a callback in which it is not allowed.
   */
  HW_ERROR_BUSY = 9,
  /**
   * More is in use than the limit allows, or limits contradict each other. The old ones are in force.
   */
  HW_ERROR_LIMIT = 10,
  /**
   * The object has no pin that could be taken back.
   */
  HW_ERROR_NOT_PINNED = 11,
  /**
   * An error of the library's own. The heap should not be used any more.
   */
  HW_ERROR_INTERNAL = 12,
} hw_status;

/**
 * A heap. Several may live side by side, with plans of their own.
 */
typedef struct hw_heap hw_heap;

/**
 * Options, by name. Made by `hw_options_create`.
 */
typedef struct hw_options hw_options;

/**
 * Takes the fields of one object: given to `hw_vm.scan`, for `hw_visit_slot` and `hw_visit_slots`. Good during that call.
 */
typedef struct hw_visitor hw_visitor;

/**
 * A handle that does not keep its object alive. May outlive its heap, and then refers to nothing.
 */
typedef struct hw_weak hw_weak;

/**
 * A map from objects, by identity, to objects that live as long as their keys. May outlive its heap, and then is empty.
 */
typedef struct hw_weak_map hw_weak_map;

/**
 * The address of an object's first byte; null for none. The first word of an object is its header: its low eight bits are the heap's, the
 * others the program's (`hw_set_header`). Fields that hold references are whole words.
 */
typedef void *hw_object;

/**
 * What a collection was, for `hw_vm.collected`. Sizes in bytes, times in nanoseconds.
 */
typedef struct hw_collection {
  /**
   * Its number, from 1.
   */
  uint64_t number;
  /**
   * How long the world was stopped.
   */
  uint64_t pause_ns;
  /**
   * What was in use before.
   */
  size_t before_bytes;
  /**
   * What lives.
   */
  size_t live_bytes;
  /**
   * What was copied to another place.
   */
  size_t copied_bytes;
  /**
   * 1: everything was traced; 0: only what is young.
   */
  uint32_t full;
  /**
   * Why: a word, good for ever.
   */
  const char *cause;
} hw_collection;

/**
 * How the heap sees the program's objects. Filled in by the program (`hw_vm_init` sets size, and the rest to zero); copied when a heap is
 * made. Callbacks get `user` first. None of them allocates on the heap, waits for another thread, jumps out of the call (`longjmp`), or
 * throws. `size`, `scan` and `type_of` are called by many threads at once.
 */
typedef struct hw_vm {
  /**
   * `sizeof(hw_vm)`, as the program was compiled.
   */
  size_t struct_size;
  /**
   * `HW_OBJECT_MAP`, or 0.
   */
  uint32_t flags;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * The program's own: the first argument of each callback.
   */
  void *user;
  /**
   * Must be there. The bytes of an object, as they were asked for when it was allocated. Reads nothing but the object.
   */
  size_t (*size)(void *user, hw_object object);
  /**
   * Must be there. Hands each field that may hold a reference to `visitor`, once. A new object is all zero.
   */
  void (*scan)(void *user, hw_object object, struct hw_visitor *visitor);
  /**
   * May be null. Hands over the roots of one mutator, beside those of `hw_push_root`. World stopped.
   */
  void (*thread_roots)(void *user, void *thread, struct hw_visitor *visitor);
  /**
   * May be null. Hands over all other roots, beside those of `hw_add_root`. World stopped.
   */
  void (*roots)(void *user, struct hw_visitor *visitor);
  /**
   * May be null: then there is one type, 0. A number for the type of an object.
   */
  uint32_t (*type_of)(void *user, hw_object object);
  /**
   * May be null. What people call a type; the string is copied.
   */
  const char *(*type_name)(void *user, uint32_t id);
  /**
   * May be null. A collection is over. Called by the thread that collected; uses no mutator.
   */
  void (*collected)(void *user, const struct hw_collection *collection);
} hw_vm;

/**
 * What a heap uses: see `hw_get_usage`. Bytes.
 */
typedef struct hw_usage {
  /**
   * Blocks and large objects in use.
   */
  size_t used_bytes;
  /**
   * What may be in use before the heap is collected.
   */
  size_t limit_bytes;
  /**
   * What lived after the last collection.
   */
  size_t live_bytes;
  /**
   * What `hw_external_allocated` reported, less what was freed.
   */
  size_t external_bytes;
  /**
   * Handed to mutators since the heap was made, of those that are detached.
   */
  uint64_t allocated_bytes;
  /**
   * Collections so far.
   */
  uint64_t collections;
  /**
   * Those that traced everything.
   */
  uint64_t full_collections;
  /**
   * Limits in force; 0: none.
   */
  size_t soft_limit;
  /**
   * See `soft_limit`.
   */
  size_t hard_limit;
} hw_usage;

/**
 * A size class of the fast path.
 */
typedef struct hw_size_class {
  /**
   * Bytes of a cell.
   */
  uint16_t bytes;
  /**
   * Its number.
   */
  uint16_t number;
} hw_size_class;

/**
 * A mutator: what allocates, by one thread at a time. The fields are for the inline functions of the header, and for code generators; they do
 * not change until it is detached.
 */
typedef struct hw_mutator {
  /**
   * The largest request that is allocated inline, in bytes; 0: none is.
   */
  size_t most;
  /**
   * Of plans that bump: the cursor, with the limit behind it. Of those with size classes: where the address of the runs is.
   */
  size_t *cursor;
  /**
   * Null for plans that bump; else the class of a request, by its words (or, with `HW_OBJECT_MAP`, its pairs of words).
   */
  const struct hw_size_class *classes;
  /**
   * What becomes the first word of a new object.
   */
  const size_t *header;
  /**
   * Not 0: call `hw_poll`.
   */
  const uint32_t *interrupt;
  /**
   * Not 0: call `hw_before_write`.
   */
  const uint8_t *barrier;
  /**
   * The run of class 0, in bytes from the runs.
   */
  uint32_t first;
  /**
   * From one run to the next, in bytes.
   */
  uint32_t stride;
  /**
   * Requests are rounded up to multiples of 1 << `align`.
   */
  uint32_t align;
  /**
   * 0.
   */
  uint32_t reserved;
} hw_mutator;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What went wrong in the calling thread's last call that failed: a sentence, or the empty string. Never null. Good until the next call
 * of this thread that fails. Calls that succeed leave it as it is.
 */
const char *hw_last_error(void);

/**
 * The status of the calling thread's last call that failed: for functions that answer with something else, as `hw_alloc`.
 */
enum hw_status hw_last_status(void);

/**
 * A name of a status, as `"HW_ERROR_MEMORY"`. Never null; the string is good for ever. Any number may be asked for.
 */
const char *hw_status_name(int32_t status);

/**
 * In `scan` and in callbacks for roots: one word that holds a reference or null. It is updated if the object moves. Nulls are ignored.
 */
void hw_visit_slot(struct hw_visitor *visitor,
                   hw_object *slot);

/**
 * The same for `count` words one after the other: the array of an object is divided among threads.
 */
void hw_visit_slots(struct hw_visitor *visitor, hw_object *first, size_t count);

/**
 * In callbacks for roots: an object that is alive and stays where it is, as the reference to it cannot be updated. Only with `HW_OBJECT_MAP`:
 * 0 if it was not taken.
 */
int32_t hw_visit_pinned(struct hw_visitor *visitor,
                        hw_object object);

/**
 * In callbacks for roots: a word that may be a reference, or point into an object. What it leads to is alive and stays where it is. Only with
 * `HW_OBJECT_MAP`: 0 if it was not taken.
 */
int32_t hw_visit_ambiguous(struct hw_visitor *visitor,
                           size_t word);

/**
 * The interface that the library has: compare `HW_ABI_VERSION`.
 */
uint32_t hw_abi_version(void);

/**
 * The library's version, as `"0.1.0"`.
 */
const char *hw_version(void);

/**
 * New options, with the defaults.
 */
enum hw_status hw_options_create(struct hw_options **options);

/**
 * Sets an option by its name, as `"plan"` to `"immix"` or `"max"` to `"64m"`. The names are in the guide; the message of an error lists what
 * is allowed.
 */
enum hw_status hw_options_set(struct hw_options *options,
                              const char *name,
                              const char *value);

/**
 * Frees options and sets the pointer to null. Null is fine. Heaps that were made with them do not need them.
 */
enum hw_status hw_options_destroy(struct hw_options **options);

/**
 * What `hw_heap_create` calls, with the version of its header.
 */
enum hw_status hw_heap_create_versioned(uint32_t abi,
                                        const struct hw_vm *vm,
                                        const struct hw_options *options,
                                        struct hw_heap **heap);

/**
 * Frees a heap with all its objects, and sets the pointer to null, which is also fine to give. `HW_ERROR_BUSY` as long as a mutator is attached:
 * nothing is freed then. Weak handles and maps may be destroyed later.
 */
enum hw_status hw_heap_destroy(struct hw_heap **heap);

/**
 * A variable of the program that holds a reference or null is a root, until `hw_remove_root`. Any thread. `HW_ERROR_ARGUMENT` if it is one
 * already.
 */
enum hw_status hw_add_root(struct hw_heap *heap,
                           hw_object *slot);

/**
 * Takes such a root back. `HW_ERROR_ARGUMENT` if it is none.
 */
enum hw_status hw_remove_root(struct hw_heap *heap, hw_object *slot);

/**
 * What a heap uses. Any thread.
 */
enum hw_status hw_get_usage(const struct hw_heap *heap, struct hw_usage *usage);

/**
 * Attaches a mutator. `thread` is the program's own, for `hw_vm.thread_roots`. The mutator is inside of the heap: collections wait for it, until
 * it allocates, polls (`hw_poll`), or goes outside (`hw_outside`). It may be handed from thread to thread.
 */
enum hw_status hw_attach(struct hw_heap *heap,
                         void *thread,
                         struct hw_mutator **mutator);

/**
 * Detaches a mutator and sets the pointer to null. Null is `HW_ERROR_DETACHED`: it was detached before. So is a copy of the pointer, as long as
 * its heap is there and at most 256 more mutators were detached since; later it must not be used.
 */
enum hw_status hw_detach(struct hw_mutator **mutator);

/**
 * What `hw_alloc` calls when the inline part does not do. Any size: at least 16 bytes are taken. Zeroed. May collect. Null if there is no room:
 * `hw_last_status` says why.
 */
hw_object hw_alloc_slow(struct hw_mutator *mutator,
                        size_t bytes);

/**
 * As `hw_alloc`, for an object that never moves, in every plan.
 */
hw_object hw_alloc_unmoving(struct hw_mutator *mutator, size_t bytes);

/**
 * As `hw_alloc`, for an object that lives as long as the heap, and never moves.
 */
hw_object hw_alloc_immortal(struct hw_mutator *mutator, size_t bytes);

/**
 * What `hw_poll` calls when a collection waits.
 */
enum hw_status hw_poll_slow(struct hw_mutator *mutator);

/**
 * What `hw_write` calls when there is a barrier. `slot` is the field that is about to be written; null: any number of them.
 */
enum hw_status hw_before_write(struct hw_mutator *mutator,
                               hw_object holder,
                               hw_object *slot);

/**
 * A variable of the calling function is a root until `hw_pop_roots`. It holds a reference or null, and is not pushed twice.
 */
enum hw_status hw_push_root(struct hw_mutator *mutator,
                            hw_object *slot);

/**
 * The `count` roots that were pushed last are none any more. `HW_ERROR_ARGUMENT` if there are fewer: then all stay.
 */
enum hw_status hw_pop_roots(struct hw_mutator *mutator,
                            size_t count);

/**
 * Collects now. A plan that never collects does nothing.
 */
enum hw_status hw_collect(struct hw_mutator *mutator, uint32_t how);

/**
 * Calls `work(arg)` outside of the heap: for what may take long, as a read or a lock. Collections do not wait for it. `work` uses neither the
 * mutator nor references.
 */
enum hw_status hw_outside(struct hw_mutator *mutator,
                          void (*work)(void *arg),
                          void *arg);

/**
 * Changes the limits, in bytes; 0: as the system has them. Collects first if more is in use than `hard`. `HW_ERROR_LIMIT` if then still more
 * lives: the old limits stay in force.
 */
enum hw_status hw_set_limits(struct hw_mutator *mutator,
                             size_t soft,
                             size_t hard);

/**
 * The program took so many bytes by `malloc` or elsewhere for an object: they count towards the next collection.
 */
enum hw_status hw_external_allocated(struct hw_mutator *mutator,
                                     size_t bytes);

/**
 * It gave them back. Any thread.
 */
enum hw_status hw_external_freed(struct hw_heap *heap, size_t bytes);

/**
 * Keeps an object where it is, until `hw_unpin` was called as often. It is not kept alive.
 */
enum hw_status hw_pin(struct hw_mutator *mutator, hw_object pinned);

/**
 * Takes one pin back. `HW_ERROR_NOT_PINNED` if there is none.
 */
enum hw_status hw_unpin(struct hw_mutator *mutator, hw_object pinned);

/**
 * A number that stays the same as long as the object lives, wherever it moves. Two objects may have the same.
 */
enum hw_status hw_identity_hash(struct hw_mutator *mutator,
                                hw_object of,
                                size_t *hash);

/**
 * Calls `visit` for every object, with the world stopped; also for those that died since the last collection. `visit` uses no mutator.
 * `HW_ERROR_UNSUPPORTED` without `HW_OBJECT_MAP`.
 */
enum hw_status hw_for_each_object(struct hw_mutator *mutator,
                                  void (*visit)(void *arg, hw_object object),
                                  void *arg);

/**
 * The object at or around an address, or null if there is none. `HW_ERROR_UNSUPPORTED` without `HW_OBJECT_MAP`.
 */
enum hw_status hw_object_at(struct hw_mutator *mutator,
                            size_t address,
                            hw_object *found);

/**
 * A weak handle to an object: `HW_SOFT`, `HW_WEAK` or `HW_PHANTOM`.
 */
enum hw_status hw_weak_create(struct hw_mutator *mutator,
                              hw_object target,
                              uint32_t strength,
                              struct hw_weak **weak);

/**
 * The object of a weak handle; null if it was cleared, or on an error.
 */
hw_object hw_weak_get(struct hw_mutator *mutator, const struct hw_weak *weak);

/**
 * 1: the handle refers to nothing any more, or is null. Any thread; also for phantom ones.
 */
int32_t hw_weak_is_cleared(const struct hw_weak *weak);

/**
 * Frees a handle and sets the pointer to null, which is also fine to give.
 */
enum hw_status hw_weak_destroy(struct hw_weak **weak);

/**
 * A new weak map.
 */
enum hw_status hw_weak_map_create(struct hw_mutator *mutator, struct hw_weak_map **map);

/**
 * Enters a value, in the place of the one that was there.
 */
enum hw_status hw_weak_map_insert(struct hw_mutator *mutator,
                                  const struct hw_weak_map *map,
                                  hw_object key,
                                  hw_object value);

/**
 * The value of a key; null if there is none, or on an error.
 */
hw_object hw_weak_map_get(struct hw_mutator *mutator, const struct hw_weak_map *map, hw_object key);

/**
 * Takes an entry out: its value, or null.
 */
hw_object hw_weak_map_remove(struct hw_mutator *mutator,
                             const struct hw_weak_map *map,
                             hw_object key);

/**
 * How many entries there are, with those whose keys died since the last collection. Any thread.
 */
size_t hw_weak_map_count(const struct hw_weak_map *map);

/**
 * Frees a map and sets the pointer to null, which is also fine to give.
 */
enum hw_status hw_weak_map_destroy(struct hw_weak_map **map);

/**
 * Registers an ephemeron: `holder` has a key and a value in the words at these offsets, in bytes, which `hw_vm.scan` does not report. The value
 * is kept while holder and key live; both words become null when the key dies. `HW_ERROR_ARGUMENT` if an offset is 0 or no multiple of 8.
 */
enum hw_status hw_add_ephemeron(struct hw_mutator *mutator,
                                hw_object holder,
                                uint32_t key,
                                uint32_t value);

/**
 * When nothing reaches the object any more, it is queued for `hw_next_finalizable`, with the token, and lives until it is taken from there.
 * `order` is `HW_TOGETHER` or `HW_IN_ORDER`.
 */
enum hw_status hw_add_finalizer(struct hw_mutator *mutator,
                                hw_object target,
                                uint32_t order,
                                size_t token);

/**
 * Takes the next object that is to be finalized: null if there is none. `token` may be null.
 */
hw_object hw_next_finalizable(struct hw_mutator *mutator, size_t *token);

/**
 * Calls `finalize` for at most `most` objects that are to be finalized: how many it was. `finalize` may do all that a mutator may, also
 * allocate, register finalizers, and keep the object.
 */
size_t hw_run_finalizers(struct hw_mutator *mutator,
                         size_t most,
                         void (*finalize)(void *arg,
                                          struct hw_mutator *mutator,
                                          hw_object object,
                                          size_t token),
                         void *arg);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus


/* ---- inline: written by hand in include/inline.h ---------------------------------------------------------------------------------------- */

#ifdef __cplusplus
extern "C" {
#endif

/** Sets all of a table to zero, and its size. Then fill in at least size and scan. */
static inline void hw_vm_init(struct hw_vm *vm) {
  static const struct hw_vm zero = {0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
  *vm = zero;
  vm->struct_size = sizeof *vm;
}

/** Makes a heap. options may be null: the defaults. HW_ERROR_CALLBACK if a callback is missing, HW_ERROR_VERSION if this header is not the
 * library's. */
static inline enum hw_status hw_heap_create(const struct hw_vm *vm, const struct hw_options *options, struct hw_heap **heap) {
  return hw_heap_create_versioned(HW_ABI_VERSION, vm, options, heap);
}

/**
 * Allocates an object of so many bytes, zeroed, aligned to 8 (to 16 with HW_OBJECT_MAP). May collect. Null if there is no room: hw_last_status()
 * says why. Set its header and fields before the next call that may collect.
 */
static inline hw_object hw_alloc(struct hw_mutator *mutator, size_t bytes) {
  if (bytes - 1 < mutator->most) { /* 0 is for the slow path */
    size_t size = bytes <= 16 ? 16 : (bytes + 7) & ~(size_t)7;
    uintptr_t *run = (uintptr_t *)mutator->cursor;
    uintptr_t object;
    if (mutator->classes) {
      size_t unit = (size_t)1 << mutator->align;
      struct hw_size_class cls = mutator->classes[(size + unit - 1) >> mutator->align];
      run = (uintptr_t *)(*run + mutator->first + (size_t)cls.number * mutator->stride);
      size = cls.bytes;
    }
    object = __atomic_load_n(&run[0], __ATOMIC_RELAXED);
    if (size <= __atomic_load_n(&run[1], __ATOMIC_RELAXED) - object) {
      __atomic_store_n(&run[0], object + size, __ATOMIC_RELAXED);
      *(size_t *)object = *mutator->header;
      return (hw_object)object;
    }
  }
  return hw_alloc_slow(mutator, bytes);
}

/** Writes a reference, or null, into a field of an object, with the barrier. Every such write goes through this, or hw_before_write first. */
static inline void hw_write(struct hw_mutator *mutator, hw_object holder, hw_object *slot, hw_object value) {
  if (__atomic_load_n(mutator->barrier, __ATOMIC_RELAXED)) (void)hw_before_write(mutator, holder, slot);
  __atomic_store_n(slot, value, __ATOMIC_RELAXED);
}

/** A safepoint, for loops that do not allocate: stops here if a collection waits. May move objects. */
static inline void hw_poll(struct hw_mutator *mutator) {
  if (__atomic_load_n(mutator->interrupt, __ATOMIC_RELAXED)) (void)hw_poll_slow(mutator);
}

/** The program's 56 bits of an object's header. */
static inline uint64_t hw_header(hw_object object) {
  return (uint64_t)(__atomic_load_n((size_t *)object, __ATOMIC_RELAXED) >> 8);
}

/** Sets them; the heap's 8 bits stay. */
static inline void hw_set_header(hw_object object, uint64_t value) {
  size_t *at = (size_t *)object;
  size_t old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(at, &old, (old & 0xff) | (size_t)(value << 8), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

#ifdef __cplusplus
}
#endif

#endif  /* HEAPWRIGHT_H */
