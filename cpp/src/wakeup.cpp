// wakeup.cpp - a file descriptor that becomes readable when somebody wakes it.
#include "wakeup.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <system_error>

#if __has_include(<sys/eventfd.h>)
#include <sys/eventfd.h>
#define OFFGIL_HAS_EVENTFD 1
#else
#define OFFGIL_HAS_EVENTFD 0
#endif

namespace offgil {
namespace {

[[noreturn]] void fail(const char* what, int error) {
  throw std::system_error(error, std::generic_category(), what);
}

int open_eventfd() {
#if OFFGIL_HAS_EVENTFD
  const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) fail("eventfd", errno);
  return fd;
#else
  fail("eventfd", ENOSYS);
#endif
}

}  // namespace

wakeup::wakeup(mechanism with) {
  const bool prefer_pipe = with == mechanism::pipe || (with == mechanism::best && !OFFGIL_HAS_EVENTFD);
  if (!prefer_pipe) {
    read_end_ = write_end_ = open_eventfd();
    return;
  }
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) fail("pipe", errno);
  for (const int end : ends) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
    ::fcntl(end, F_SETFL, ::fcntl(end, F_GETFL) | O_NONBLOCK);
  }
  read_end_ = ends[0];
  write_end_ = ends[1];
}

wakeup::~wakeup() {
  ::close(read_end_);
  if (write_end_ != read_end_) ::close(write_end_);
}

void wakeup::wake() noexcept {
  // Eight bytes because an eventfd takes nothing else. EAGAIN means that a wake-up is pending already.
  const std::uint64_t one = 1;
  while (::write(write_end_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void wakeup::clear() noexcept {
  std::array<std::uint64_t, 64> sink{};
  for (;;) {
    const auto got = ::read(read_end_, sink.data(), sizeof sink);
    if (got < 0 && errno == EINTR) continue;
    // An eventfd is empty after one read; a pipe may hold more than one buffer full.
    if (got < static_cast<ssize_t>(sizeof sink)) return;
  }
}

}  // namespace offgil
