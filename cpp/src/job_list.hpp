// job_list.hpp - a FIFO of jobs linked through job::next.
#pragma once

#include <cstddef>
#include <utility>

#include "job.hpp"

namespace offgil {

// Owns no memory: a job is in at most one list. Not thread-safe.
class job_list {
 public:
  job_list() = default;
  job_list(job_list&& other) noexcept
      : head_(std::exchange(other.head_, nullptr)),
        tail_(std::exchange(other.tail_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  job_list& operator=(job_list&& other) noexcept {
    head_ = std::exchange(other.head_, nullptr);
    tail_ = std::exchange(other.tail_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  // Takes a chain that is linked oldest first and ends in null.
  explicit job_list(job* chain) noexcept {
    while (chain != nullptr) push_back(*std::exchange(chain, chain->next));
  }

  // Takes a chain that is linked newest first and ends in null.
  static job_list from_newest(job* newest) noexcept {
    job_list oldest_first;
    oldest_first.tail_ = newest;
    while (newest != nullptr) {
      job* const older = std::exchange(newest->next, oldest_first.head_);
      oldest_first.head_ = std::exchange(newest, older);
      ++oldest_first.size_;
    }
    return oldest_first;
  }

  bool empty() const noexcept { return head_ == nullptr; }
  std::size_t size() const noexcept { return size_; }
  job* front() const noexcept { return head_; }

  void push_back(job& j) noexcept {
    j.next = nullptr;
    (empty() ? head_ : tail_->next) = &j;
    tail_ = &j;
    ++size_;
  }

  void push_back(job_list&& other) noexcept {
    if (other.empty()) return;
    (empty() ? head_ : tail_->next) = std::exchange(other.head_, nullptr);
    tail_ = std::exchange(other.tail_, nullptr);
    size_ += std::exchange(other.size_, 0);
  }

  // Puts each job in front of those that were submitted later. Both lists stand in the order of their age.
  void push_in_order(job_list&& other) noexcept {
    job_list merged;
    while (!other.empty()) {
      const bool mine_is_older = !empty() && head_->submitted_at < other.head_->submitted_at;
      merged.push_back(mine_is_older ? pop_front() : other.pop_front());
    }
    merged.push_back(std::move(*this));
    *this = std::move(merged);
  }

  job& pop_front() noexcept {
    job& j = *head_;
    head_ = j.next;
    if (head_ == nullptr) tail_ = nullptr;
    j.next = nullptr;
    --size_;
    return j;
  }

  // Takes those out that `is_wanted`; the others keep their order.
  template <class Predicate>
  job_list take_if(Predicate is_wanted) noexcept {
    job_list taken;
    job_list left;
    while (!empty()) {
      job& j = pop_front();
      (is_wanted(j) ? taken : left).push_back(j);
    }
    *this = std::move(left);
    return taken;
  }

  // Gives the jobs up as a chain, oldest first.
  job* release() noexcept {
    tail_ = nullptr;
    size_ = 0;
    return std::exchange(head_, nullptr);
  }

 private:
  job* head_ = nullptr;
  job* tail_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace offgil
