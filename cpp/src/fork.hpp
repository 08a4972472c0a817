// fork.hpp - whether this process was forked from another one since.
#pragma once

#include <cstdint>

namespace offgil {

// Threads do not survive a fork. Who depends on some remembers the generation in which it started them, and
// compares: one atomic load. A fork handler, which touches nothing but one atomic, is registered when the
// library is loaded.
class process_generation {
 public:
  process_generation() noexcept;  // the present one

  bool is_over() const noexcept;  // true in a forked child

 private:
  std::uint64_t born_in_;
};

}  // namespace offgil
