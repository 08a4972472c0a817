// io_threads.cpp - the threads of a pool, inside Boost.Asio's io_context::run().
#include "io_threads.hpp"

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "handler_memory.hpp"
#include "thread.hpp"

namespace offgil {

struct io_threads::implementation {
  implementation(unsigned count, guest& of)
      : host(of),
        memory(count + 1),  // a call per thread, and the tick
        io(static_cast<int>(count)),
        keep_running(io.get_executor()),
        timer(io) {
    // Asio takes memory for the first wait of all, and keeps it; tick_after() may not fail.
    timer.expires_after(std::chrono::hours(1));
    timer.async_wait([](const boost::system::error_code&) {});
    timer.cancel();
  }

  void run(unsigned index) noexcept {
    host.on_thread_start(index);
    io.run();
    host.on_thread_end();
    const std::lock_guard lock(mutex);
    --live;
    ended.notify_all();
  }

  template <class Handler>
  auto allocated_here(Handler handler) {
    return boost::asio::bind_allocator(handler_memory::allocator<std::byte>(memory), std::move(handler));
  }

  guest& host;
  handler_memory memory;
  boost::asio::io_context io;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> keep_running;
  boost::asio::steady_timer timer;
  std::mutex mutex;
  std::condition_variable ended;
  unsigned live = 0;                             // guarded by mutex
  std::vector<std::unique_ptr<thread>> threads;  // last: joined before anything else goes
};

io_threads::io_threads(unsigned count, const std::string& name, int nice, guest& of)
    : implementation_(std::make_unique<implementation>(count, of)) {
  implementation& own = *implementation_;
  own.threads.reserve(count);
  own.live = count;
  try {
    for (unsigned i = 0; i < count; ++i) {
      auto body = [&own, i] { own.run(i); };
      own.threads.push_back(std::make_unique<thread>(name + std::to_string(i), nice, std::move(body)));
    }
  } catch (...) {
    own.io.stop();  // those that have started return at once, and are joined with `threads`
    throw;
  }
}

io_threads::~io_threads() = default;

void io_threads::call() noexcept {
  boost::asio::post(implementation_->io,
                    implementation_->allocated_here([&host = implementation_->host] { host.on_call(); }));
}

void io_threads::tick_after(std::chrono::nanoseconds delay) noexcept {
  implementation_->timer.expires_after(delay);
  implementation_->timer.async_wait(implementation_->allocated_here(
      [&host = implementation_->host](const boost::system::error_code&) { host.on_tick(); }));
}

void io_threads::let_end() noexcept { implementation_->keep_running.reset(); }

bool io_threads::wait_until_ended(std::chrono::nanoseconds at_most) {
  implementation& own = *implementation_;
  std::unique_lock lock(own.mutex);
  return own.ended.wait_for(lock, at_most, [&own] { return own.live == 0; });
}

}  // namespace offgil
