// mailbox.hpp - where workers leave the finished jobs of one event loop.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

#include "completion_queue.hpp"
#include "dispatcher.hpp"
#include "wakeup.hpp"

namespace offgil::python {

class loop_channel;

// A completion queue with the means to call its consumer: a descriptor that an event loop watches, or the
// dispatcher. Belongs to the pool and is handed from one event loop to the next: workers touch a
// mailbox after their job is out of their hands, so it must outlive their threads, not the loop. A wake-up
// that comes too late finds the next owner, to whom it is a spurious one.
class mailbox final : public completion_queue, private waker, private announced {
 public:
  // Watched by an event loop. Throws std::system_error when no descriptor can be had.
  mailbox() : completion_queue(static_cast<waker&>(*this)), descriptor_(std::make_unique<wakeup>()) {}

  // Announced by `by`.
  explicit mailbox(std::shared_ptr<dispatcher> by) noexcept : completion_queue(static_cast<waker&>(*this)) {
    announce_by(std::move(by));
  }

  bool is_watched() const noexcept { return descriptor_ != nullptr; }
  int fd() const noexcept { return descriptor_->fd(); }
  void clear_wakeup() noexcept { descriptor_->clear(); }

  // Calls the consumer, without Python code on the calling thread.
  void ring() noexcept { wake(); }

  // With the GIL. Announced as well, where the loop that watches calls nobody any more; until it gets another
  // owner.
  void announce_by(std::shared_ptr<dispatcher> by) noexcept;
  void let_only_watch() noexcept;

  // The owner's loop has called it.
  void note_answer() noexcept { answers_.fetch_add(1, std::memory_order_relaxed); }

  // How long an announced mailbox waits for its owner's loop before that is called again.
  static constexpr std::chrono::milliseconds patience = dispatcher::patience;

  loop_channel* owner = nullptr;  // guarded by the GIL

 private:
  void wake() noexcept override;
  void on_dispatch() noexcept override;
  answer look_for_answer() noexcept override;

  std::unique_ptr<wakeup> descriptor_;
  std::shared_ptr<dispatcher> dispatcher_;  // guarded by the GIL
  std::atomic<dispatcher*> announcer_{nullptr};
  std::atomic<std::uint64_t> answers_{0};
  std::uint64_t answers_seen_ = 0;  // the dispatcher's
};

}  // namespace offgil::python
