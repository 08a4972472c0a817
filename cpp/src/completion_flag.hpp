// completion_flag.hpp - whether a job's outcome is there, and who wants to be told.
#pragma once

#include <atomic>
#include <cstdint>

namespace offgil {

// One byte beside a job whose owner may ask for the outcome from any thread. Set once, never cleared.
class completion_flag {
 public:
  enum wish : std::uint8_t {
    notice = 2,  // somebody wants to be notified: it must be looked at by who can do that
    wait = 4     // a thread waits in a waiting_room
  };

  bool is_set() const noexcept { return (bits_.load(std::memory_order_acquire) & set_) != 0; }

  // Publishes the outcome, and returns the wishes made so far; a later wish() finds the flag set. Release for
  // who sees it set, acquire for what those who made a wish wrote before.
  std::uint8_t set() noexcept { return bits_.fetch_or(set_, std::memory_order_acq_rel); }

  // False: too late, the flag is set.
  bool make(wish one) noexcept { return (bits_.fetch_or(one, std::memory_order_acq_rel) & set_) == 0; }

 private:
  static constexpr std::uint8_t set_ = 1;
  std::atomic<std::uint8_t> bits_{0};
};

}  // namespace offgil
