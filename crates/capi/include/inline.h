
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
