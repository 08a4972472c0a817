// test_handler_memory.cpp - memory for Asio handlers that must never fail to be posted.
#include "handler_memory.hpp"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

namespace offgil {
namespace {

TEST(handler_memory, gives_each_of_its_blocks_once_and_again_when_it_came_back) {
  constexpr std::size_t blocks = 3;
  handler_memory memory(blocks);
  std::set<void*> first;
  for (std::size_t i = 0; i < blocks; ++i) first.insert(memory.take(64));
  EXPECT_EQ(first.size(), blocks);
  for (void* block : first) memory.give_back(block);
  std::set<void*> second;
  for (std::size_t i = 0; i < blocks; ++i) second.insert(memory.take(64));
  EXPECT_EQ(second, first);
  for (void* block : second) memory.give_back(block);
}

TEST(handler_memory, falls_back_to_the_heap_for_what_is_too_many_or_too_large) {
  handler_memory memory(1);
  void* const own = memory.take(64);
  void* const too_many = memory.take(64);
  EXPECT_NE(own, too_many);
  memory.give_back(own);
  void* const too_large = memory.take(10'000);
  EXPECT_NE(too_large, own);
  memory.give_back(too_many);
  memory.give_back(too_large);
}

TEST(handler_memory, never_gives_one_block_to_two_threads) {
  handler_memory memory(2);
  std::vector<std::thread> threads;
  for (int id = 1; id <= 4; ++id)
    threads.emplace_back([&memory, id] {
      for (int i = 0; i < 20'000; ++i) {
        auto* const mine = static_cast<volatile int*>(memory.take(sizeof(int)));
        *mine = id;
        EXPECT_EQ(*mine, id);
        memory.give_back(const_cast<int*>(mine));
      }
    });
  for (std::thread& each : threads) each.join();
}

}  // namespace
}  // namespace offgil
