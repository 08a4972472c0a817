// heavy_work.cpp - what the service computes for a request: a key from a password, a document compressed.
#include <openssl/evp.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <zlib.h>

#include <array>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "offgil/sdk.hpp"

namespace py = pybind11;

namespace {

std::string derived_key(const std::string& password, const std::string& salt, int iterations) {
  std::array<unsigned char, 32> key{};
  const auto* salt_bytes = reinterpret_cast<const unsigned char*>(salt.data());
  if (iterations < 1 || PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), salt_bytes,
                                          static_cast<int>(salt.size()), iterations, EVP_sha256(),
                                          static_cast<int>(key.size()), key.data()) != 1)
    throw std::invalid_argument("no key can be derived from these");
  constexpr char digits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : key) {
    hex += digits[byte >> 4U];
    hex += digits[byte & 15U];
  }
  return hex;
}

std::uint64_t compressed_size(const std::string& document) {
  uLongf size = compressBound(static_cast<uLong>(document.size()));
  std::vector<Bytef> compressed(size);
  const auto* bytes = reinterpret_cast<const Bytef*>(document.data());
  if (compress(compressed.data(), &size, bytes, static_cast<uLong>(document.size())) != Z_OK)
    throw std::bad_alloc();
  return size;
}

std::pair<std::string, std::uint64_t> seal(const std::string& password, const std::string& salt,
                                           int iterations, const std::string& document) {
  return {derived_key(password, salt, iterations), compressed_size(document)};
}

}  // namespace

PYBIND11_MODULE(heavy_work, m) {
  m.doc() = "The web service's heavy work, as a native function.";
  offgil::def(m, "seal", &seal,
              "Return the key of a password (PBKDF2, SHA-256) in hex, and a document's size compressed.",
              py::arg("password"), py::arg("salt"), py::arg("iterations"), py::arg("document"));
}
