// What the loops share: how XLA calls them, and how long their sums are.

#ifndef LRU_SCAN_CPU_LOOPS_H_
#define LRU_SCAN_CPU_LOOPS_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "xla/ffi/api/ffi.h"

// Gradients of what is constant over time are summed over so many steps before they join the total:
// the error of a sum grows with the number of its terms.
constexpr int64_t kPartialSum = 256;

template <typename T>
struct ResultType {
  using Type = void;
};

template <typename T>
struct ResultType<xla::ffi::Result<T>> {
  using Type = T;
};

// Binds a function's parameters one by one: what each is follows from its type.
template <typename... Parameters>
struct Binder;

template <>
struct Binder<> {
  template <typename Binding, typename Function>
  static auto To(Binding binding, const char* const*, Function function) {
    return std::move(binding).To(function);
  }
};

template <typename First, typename... Rest>
struct Binder<First, Rest...> {
  template <typename Binding, typename Function>
  static auto To(Binding bound, const char* const* names, Function function) {
    using Next = Binder<Rest...>;
    using Returned = typename ResultType<First>::Type;
    if constexpr (std::is_same_v<First, xla::ffi::ThreadPool>)
      return Next::To(std::move(bound).template Ctx<First>(), names, function);
    else if constexpr (std::is_same_v<First, bool> || std::is_same_v<First, std::string_view>)
      return Next::To(std::move(bound).template Attr<First>(*names), names + 1, function);
    else if constexpr (std::is_same_v<First, xla::ffi::RemainingArgs>)
      return Next::To(std::move(bound).RemainingArgs(), names, function);
    else if constexpr (std::is_same_v<First, xla::ffi::RemainingRets>)
      return Next::To(std::move(bound).RemainingRets(), names, function);
    else if constexpr (!std::is_void_v<Returned>)
      return Next::To(std::move(bound).template Ret<Returned>(), names, function);
    else
      return Next::To(std::move(bound).template Arg<First>(), names, function);
  }
};

template <typename... Parameters>
auto HandlerOf(xla::ffi::Error (*function)(Parameters...),
               std::initializer_list<const char*> names) {
  return Binder<Parameters...>::To(xla::ffi::Ffi::Bind(), names.begin(), function);
}

// Defines the operation `symbol`, which is a function whose attributes, the parameters that are bool
// or strings, have these names in their order.
#define LRU_DEFINE_LOOP(symbol, function, ...)                                \
  extern "C" XLA_FFI_Error* symbol(XLA_FFI_CallFrame* frame) {                \
    static auto* handler = HandlerOf(function, {__VA_ARGS__}).release();      \
    return handler->Call(frame);                                              \
  }

#endif  // LRU_SCAN_CPU_LOOPS_H_
