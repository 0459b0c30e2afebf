using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Vmm.Kvm;

namespace Vmm.Machine.Run;

/// <summary>
/// The last exits of one vCPU: where its guest was heading when it crashed, also where the processor leaves no registers. Written by the
/// vCPU's thread, a few nanoseconds and no allocation an exit; read when that has ended.
/// </summary>
internal sealed class ExitLog
{
    /// <summary>Exits remembered; a power of two.</summary>
    internal const int Kept = 16;

    private readonly Entry[] _entries = new Entry[Kept];
    private uint _count;

    /// <summary>Remembers an access to a port or to memory without RAM, once it is answered.</summary>
    internal void Add(KvmExit exit, bool isWrite, ulong address, ReadOnlySpan<byte> data)
    {
        ulong value = 0;
        data[..Math.Min(data.Length, sizeof(ulong))].CopyTo(MemoryMarshal.AsBytes(new Span<ulong>(ref value)));
        _entries[_count++ % Kept] = new Entry(exit, isWrite, data.Length, address, value);
    }

    /// <summary>The last <paramref name="most"/>, oldest first.</summary>
    internal string Describe(int most = Kept)
    {
        uint known = Math.Min(_count, (uint)Math.Min(most, Kept));
        StringBuilder text = new();
        for (uint i = _count - known; i != _count; i++)
        {
            ref readonly Entry entry = ref _entries[i % Kept];
            text.Append(text.Length > 0 ? ", " : "");
            string verb = (entry.Exit, entry.IsWrite) switch
            {
                (KvmExit.Io, true) => "out",
                (KvmExit.Io, false) => "in",
                (_, true) => "write",
                _ => "read"
            };
            text.Append(CultureInfo.InvariantCulture, $"{verb} 0x{entry.Address:x} {Value(entry)}");
        }

        return text.Length == 0 ? "none" : text.ToString();
    }

    /// <summary>As many digits as there were bytes; a string instruction says how many came.</summary>
    private static string Value(in Entry entry) =>
        "0x"
        + entry.Value.ToString(
            "x" + (Math.Min(entry.Length, sizeof(ulong)) * 2).ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture)
        + (entry.Length > sizeof(ulong) ? $".. ({entry.Length} bytes)" : "");

    private readonly record struct Entry(KvmExit Exit, bool IsWrite, int Length, ulong Address, ulong Value);
}
