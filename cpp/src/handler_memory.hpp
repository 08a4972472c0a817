// handler_memory.hpp - memory for Asio handlers that must never fail to be posted.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <new>
#include <vector>

namespace offgil {

// A fixed number of blocks, set aside at the start. A timer waits at most once at a time, so arming it needs
// no allocation that could fail where nobody could be told. Thread-safe.
class handler_memory {
 public:
  explicit handler_memory(std::size_t blocks) : blocks_(blocks) {
    free_.reserve(blocks);
    for (block& b : blocks_) free_.push_back(&b);
  }

  void* take(std::size_t size) {
    if (size <= sizeof(block)) {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        block* taken = free_.back();
        free_.pop_back();
        return taken;
      }
    }
    return ::operator new(size);
  }

  void give_back(void* memory) noexcept {
    auto* given = static_cast<block*>(memory);
    if (given < blocks_.data() || given >= blocks_.data() + blocks_.size()) return ::operator delete(memory);
    const std::lock_guard lock(mutex_);
    free_.push_back(given);
  }

  // An Asio associated allocator over it.
  template <class T>
  class allocator {
   public:
    using value_type = T;
    explicit allocator(handler_memory& memory) noexcept : memory_(&memory) {}
    template <class U>
    allocator(const allocator<U>& other) noexcept : memory_(other.memory_) {}  // NOLINT: rebinding converts

    T* allocate(std::size_t n) { return static_cast<T*>(memory_->take(n * sizeof(T))); }
    void deallocate(T* memory, std::size_t) noexcept { memory_->give_back(memory); }
    bool operator==(const allocator&) const noexcept = default;

   private:
    template <class U>
    friend class allocator;
    handler_memory* memory_;
  };

 private:
  struct alignas(std::max_align_t) block {
    std::array<std::byte, 256> bytes;
  };

  std::vector<block> blocks_;
  std::mutex mutex_;
  std::vector<block*> free_;  // guarded by mutex_
};

}  // namespace offgil
