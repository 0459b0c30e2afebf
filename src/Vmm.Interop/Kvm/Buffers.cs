using System.Runtime.CompilerServices;

namespace Vmm.Interop.Kvm;

// Inline arrays: one field each, reached by index or as a span.
#pragma warning disable CS1591, CA1823, IDE0044, IDE0051, CS0169, S1144, MA0077

/// <summary>N bytes or words inside a kernel struct.</summary>
[InlineArray(8)] public struct Bytes8 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(5)] public struct Bytes5 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(15)] public struct Bytes15 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(16)] public struct Bytes16 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(20)] public struct Bytes20 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(26)] public struct Bytes26 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(36)] public struct Bytes36 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(64)] public struct Bytes64 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(128)] public struct Bytes128 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(256)] public struct Bytes256 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(512)] public struct Bytes512 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(1024)] public struct Bytes1024 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(4096)] public struct Bytes4096 { private byte _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(3)] public struct UInt16x3 { private ushort _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(3)] public struct UInt32x3 { private uint _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(4)] public struct UInt32x4 { private uint _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(9)] public struct UInt32x9 { private uint _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(15)] public struct UInt32x15 { private uint _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(3)] public struct UInt64x3 { private ulong _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(4)] public struct UInt64x4 { private ulong _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(8)] public struct UInt64x8 { private ulong _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(9)] public struct UInt64x9 { private ulong _first; }

/// <inheritdoc cref="Bytes8"/>
[InlineArray(16)] public struct UInt64x16 { private ulong _first; }
