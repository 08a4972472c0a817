// timer.cpp - a timer; all timers of a process share one thread.
#include "timer.hpp"

#include <algorithm>
#include <atomic>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/system_error.hpp>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "fork.hpp"
#include "handler_memory.hpp"
#include "thread.hpp"

namespace offgil {
namespace {

// The thread, and the io_context that it runs. Owned by the timers together.
class timer_thread {
 public:
  // The one of this process, with room for one more timer. Throws std::system_error.
  static std::shared_ptr<timer_thread> shared();

  timer_thread() {
    try {
      make_room_for(1);
    } catch (const boost::system::system_error& e) {
      throw std::system_error(e.code().value(), std::generic_category(),
                              "cannot open the timers' descriptors");
    }
    runner_.emplace("offgil-time", thread::attributes{}, [this] { io_.run(); });
  }

  ~timer_thread() {
    keep_running_.reset();
    runner_->join();
  }

  timer_thread(const timer_thread&) = delete;
  timer_thread& operator=(const timer_thread&) = delete;

  boost::asio::io_context& io() noexcept { return io_; }

  // Asio's timer queue grows with the timers that are armed at once, and keeps its memory. It is made large
  // enough beforehand, because expire_after() may not fail.
  void make_room_for(std::size_t timers) {
    if (timers <= room_) return;
    const std::size_t wanted = std::max<std::size_t>({timers, 2 * room_, 8});
    std::vector<boost::asio::steady_timer> armed;
    armed.reserve(wanted);
    for (std::size_t i = 0; i < wanted; ++i)
      armed.emplace_back(io_, std::chrono::hours(1)).async_wait([](const boost::system::error_code&) {});
    room_ = wanted;
  }

 private:
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> keep_running_{io_.get_executor()};
  std::size_t room_ = 0;          // guarded by the mutex of the `sharing`
  std::optional<thread> runner_;  // last: joined before anything else goes
};

// What the timers of one process have in common.
struct sharing {
  const process_generation born_in;
  std::mutex mutex;
  std::weak_ptr<timer_thread> current;  // guarded by mutex

  // Never destroyed: a timer may start or stop until the process is gone. A forked child gets one of its own,
  // because the lock of its parent's may be held, by a thread that the child does not have.
  static sharing& of_this_process() {
    static std::atomic<sharing*> newest{nullptr};
    sharing* seen = newest.load(std::memory_order_acquire);
    if (seen != nullptr && !seen->born_in.is_over()) return *seen;
    auto fresh = std::make_unique<sharing>();
    if (!newest.compare_exchange_strong(seen, fresh.get(), std::memory_order_acq_rel)) return *seen;
    return *fresh.release();
  }
};

std::shared_ptr<timer_thread> timer_thread::shared() {
  sharing& common = sharing::of_this_process();
  const std::lock_guard lock(common.mutex);
  auto found = common.current.lock();
  if (!found) common.current = found = std::make_shared<timer_thread>();
  found->make_room_for(static_cast<std::size_t>(found.use_count()));
  return found;
}

}  // namespace

struct timer::implementation {
  explicit implementation(std::function<void()> call)
      : on_expiry(std::move(call)), host(timer_thread::shared()), wait(std::in_place, host->io()) {}

  bool is_stopped() {
    const std::lock_guard lock(mutex);
    return stopped;
  }

  // Also when the wait was cancelled.
  void end_wait() noexcept {
    if (!is_stopped()) on_expiry();
    const std::lock_guard lock(mutex);
    if (--outstanding == 0) none_outstanding.notify_all();
  }

  const std::function<void()> on_expiry;
  handler_memory memory{1};
  std::mutex mutex;
  // Guarded by mutex:
  bool stopped = false;
  unsigned outstanding = 0;  // waits, and calls of on_expiry
  std::condition_variable none_outstanding;
  std::shared_ptr<timer_thread> host;
  std::optional<boost::asio::steady_timer> wait;
};

timer::timer(std::function<void()> on_expiry)
    : implementation_(std::make_unique<implementation>(std::move(on_expiry))) {}

timer::~timer() { stop(); }

void timer::expire_after(std::chrono::nanoseconds delay) noexcept {
  implementation& own = *implementation_;
  const std::lock_guard lock(own.mutex);
  if (own.stopped) return;
  ++own.outstanding;
  own.wait->expires_after(delay);
  own.wait->async_wait(
      boost::asio::bind_allocator(handler_memory::allocator<std::byte>(own.memory),
                                  [&own](const boost::system::error_code&) { own.end_wait(); }));
}

void timer::stop() noexcept {
  implementation& own = *implementation_;
  std::unique_lock lock(own.mutex);
  own.stopped = true;
  if (own.wait) own.wait->cancel();
  own.none_outstanding.wait(lock, [&own] { return own.outstanding == 0; });
  own.wait.reset();
  const auto host = std::move(own.host);
  lock.unlock();
  // The last timer of all ends the thread here.
}

}  // namespace offgil
