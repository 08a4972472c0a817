// interposed_allocation.hpp - leaves a thread without memory. For one source file of a program.
#pragma once

#include <cstdlib>
#include <new>

namespace offgil::testing {

// Of the calling thread only.
inline thread_local bool memory_is_gone = false;

class without_memory {
 public:
  without_memory() { memory_is_gone = true; }
  ~without_memory() { memory_is_gone = false; }
  without_memory(const without_memory&) = delete;
  without_memory& operator=(const without_memory&) = delete;
};

}  // namespace offgil::testing

void* operator new(std::size_t size) {
  void* const memory = offgil::testing::memory_is_gone ? nullptr : std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
// Not inline, or GCC takes a plain free() for the mismatch of an operator new.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// What Asio uses where a handler brings no memory of its own.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  void* memory = nullptr;
  if (offgil::testing::memory_is_gone || ::posix_memalign(&memory, alignment, size) != 0) return nullptr;
  return memory;
}
