// trace_file.cpp - what a pool has done, as a file for chrome://tracing and Perfetto.
#include "trace_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace offgil {
namespace {

[[noreturn]] void throw_errno(const std::string& path) {
  throw std::system_error(errno, std::generic_category(), "cannot write '" + path + "'");
}

// A text that is written piece by piece.
class text_file {
 public:
  explicit text_file(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "w")) {
    if (!file_) throw_errno(path_);
  }

  text_file& operator<<(std::string_view text) {
    constexpr std::size_t at_once = std::size_t{64} * 1024;
    pending_ += text;
    if (pending_.size() >= at_once) flush();
    return *this;
  }

  template <class Integer>
    requires std::is_integral_v<Integer>
  text_file& operator<<(Integer number) {
    std::array<char, 24> digits{};
    const auto end = std::to_chars(digits.begin(), digits.end(), number).ptr;
    return *this << std::string_view(digits.begin(), end);
  }

  void close() {
    flush();
    if (std::fclose(file_.release()) != 0) throw_errno(path_);
  }

 private:
  struct closes {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };

  void flush() {
    if (std::fwrite(pending_.data(), 1, pending_.size(), file_.get()) != pending_.size()) throw_errno(path_);
    pending_.clear();
  }

  const std::string& path_;
  std::unique_ptr<std::FILE, closes> file_;
  std::string pending_;
};

// Names are UTF-8.
std::string quoted(std::string_view name) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text = "\"";
  for (const char c : name) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20)
      ((text += "\\u00") += digits[code / 16]) += digits[code % 16];
    else if (c == '"' || c == '\\')
      (text += '\\') += c;
    else
      text += c;
  }
  return text += '"';
}

class trace_writer {
 public:
  trace_writer(const trace& noted, const std::string& path) : noted_(noted), out_(path) {}

  void write() {
    out_ << R"({"traceEvents": [)";
    write_rows();
    for (std::size_t worker = 0; worker < noted_.workers.size(); ++worker)
      for (const job_span& each : noted_.workers[worker].spans) write_job(worker, each);
    for (const delivery_span& each : noted_.deliveries) write_delivery(each);
    std::size_t lost = 0;
    for (const span_log::content& each : noted_.workers) lost += each.lost;
    out_ << "\n], \"displayTimeUnit\": \"ns\", \"otherData\": {\"jobs_not_noted\": " << lost << "}}\n";
    out_.close();
  }

 private:
  // A row of the picture for each worker, then for each loop.
  void write_rows() {
    for (std::size_t i = 0; i < noted_.workers.size(); ++i) write_row(i, "worker ", i);
    for (const delivery_span& each : noted_.deliveries) loops_.push_back(each.loop);
    std::sort(loops_.begin(), loops_.end());
    loops_.erase(std::unique(loops_.begin(), loops_.end()), loops_.end());
    for (const unsigned loop : loops_) write_row(row_of_loop(loop), "event loop ", loop);
  }

  void write_row(std::size_t row, std::string_view what, std::size_t number) {
    begin_event("M", row) << R"(, "name": "thread_name", "args": {"name": ")" << what << number << "\"}}";
  }

  // Jobs that wait overlap, so that they are no thread's: asynchronous events, paired by id.
  void write_job(std::size_t worker, const job_span& job) {
    const std::string name = quoted(job.name.data());
    write_wait("b", worker, name, job.submitted);
    write_wait("e", worker, name, job.begin);
    begin_event("X", worker) << R"(, "cat": "run", "name": )" << name;
    write_time(job.begin);
    write_duration(job.end - job.begin);
    out_ << R"(, "args": {"job": )" << number_of_job_++ << "}}";
  }

  void write_wait(std::string_view phase, std::size_t worker, const std::string& name,
                  clock::time_point when) {
    begin_event(phase, worker) << R"(, "cat": "wait", "id": )" << number_of_job_ << R"(, "name": )" << name;
    write_time(when);
    out_ << "}";
  }

  void write_delivery(const delivery_span& seen) {
    begin_event("X", row_of_loop(seen.loop)) << R"(, "cat": "deliver", "name": "deliver")";
    write_time(seen.begin);
    write_duration(seen.end - seen.begin);
    out_ << R"(, "args": {"jobs": )" << seen.delivered << "}}";
  }

  text_file& begin_event(std::string_view phase, std::size_t row) {
    return out_ << (std::exchange(is_first_, false) ? "\n" : ",\n") << R"({"ph": ")" << phase
                << R"(", "pid": )" << pid_ << R"(, "tid": )" << row;
  }

  void write_time(clock::time_point when) {
    out_ << R"(, "ts": )";
    write_microseconds(when.time_since_epoch());
  }

  void write_duration(clock::duration how_long) {
    out_ << R"(, "dur": )";
    write_microseconds(how_long);
  }

  void write_microseconds(std::chrono::nanoseconds time) {
    const auto fraction = time.count() % 1000;
    out_ << time.count() / 1000 << (fraction < 10 ? ".00" : fraction < 100 ? ".0" : ".") << fraction;
  }

  std::size_t row_of_loop(unsigned loop) const {
    const auto found = std::lower_bound(loops_.begin(), loops_.end(), loop);
    return noted_.workers.size() + static_cast<std::size_t>(found - loops_.begin());
  }

  const trace& noted_;
  text_file out_;
  const int pid_ = ::getpid();
  std::vector<unsigned> loops_;
  std::size_t number_of_job_ = 0;
  bool is_first_ = true;
};

}  // namespace

void write_trace(const trace& noted, const std::string& path) { trace_writer(noted, path).write(); }

}  // namespace offgil
