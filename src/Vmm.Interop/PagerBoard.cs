using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>One mapping whose faults are answered. Twin of vmm_pager_span.</summary>
/// <param name="Address">First byte.</param>
/// <param name="Pages">Pages of 4 KiB.</param>
/// <param name="First">Number of its first page in the table, a multiple of 16.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct PagerSpan(ulong Address, ulong Pages, ulong First);

/// <summary>
/// What the responder in C and the pager in C# both see: the state of each page, where pages are mapped, and counts. Memory of its own, at
/// a fixed address.
/// </summary>
public sealed unsafe class PagerBoard : IDisposable
{
    private readonly AnonymousMapping _states;
    private readonly PagerSpan* _spans;
    private readonly Fields* _fields;
    private readonly int _count;

    /// <param name="spans">The mappings, for ever.</param>
    /// <param name="pages">Pages of the table.</param>
    /// <exception cref="KernelException">Out of memory.</exception>
    public PagerBoard(ReadOnlySpan<PagerSpan> spans, ulong pages)
    {
        _states = new AnonymousMapping((pages + 4095) & ~4095UL);
        _count = spans.Length;
        _spans = (PagerSpan*)NativeMemory.Alloc((nuint)spans.Length, (nuint)sizeof(PagerSpan));
        spans.CopyTo(new Span<PagerSpan>(_spans, spans.Length));
        _fields = (Fields*)NativeMemory.AllocZeroed(1, (nuint)sizeof(Fields));
        _fields->States = _states.Address;
        _fields->Spans = (nint)_spans;
        _fields->SpanCount = (ulong)spans.Length;
    }

    /// <summary>The first byte of the states, one a page; valid until disposed.</summary>
    public nint States => _states.Address;

    /// <summary>The mappings.</summary>
    public ReadOnlySpan<PagerSpan> Spans => new(_spans, _count);

    /// <summary>Pages in memory, staged ones among them.</summary>
    public ref long Resident => ref _fields->Resident;

    /// <summary>Pages that are staged.</summary>
    public ref long Staged => ref _fields->Staged;

    /// <summary>With so many pages in memory an empty one is not for the responder any more.</summary>
    public ref long Ceiling => ref _fields->Ceiling;

    /// <summary>Faults so far.</summary>
    public ref long Faults => ref _fields->Faults;

    /// <summary>Those that found a staged page.</summary>
    public ref long StagedFaults => ref _fields->StagedFaults;

    /// <summary>Pages that were zeroed.</summary>
    public ref long Zeroed => ref _fields->Zeroed;

    /// <summary>Faults of threads that copied few bytes and may wait (<see cref="Userfault.CopyBytes"/>).</summary>
    public ref long CopyFaults => ref _fields->CopyFaults;

    /// <summary>Faults of threads of this process that neither copied so nor are vCPUs: nobody may wait for a page there.</summary>
    public ref long ForeignFaults => ref _fields->ForeignFaults;

    internal nint Address => (nint)_fields;

    internal void Connect(int faults, int stop, int others) =>
        (_fields->FaultsFd, _fields->StopFd, _fields->OthersFd) = (faults, stop, others);

    /// <summary>After all threads that look at it ended.</summary>
    public void Dispose()
    {
        if (!_states.IsClosed)
        {
            _states.Dispose();
            NativeMemory.Free(_fields);
            NativeMemory.Free(_spans);
        }
    }

    /// <summary>Twin of vmm_pager_board.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Fields
    {
        internal nint States, Spans;
        internal ulong SpanCount;
        internal long Resident, Staged, Ceiling, Faults, StagedFaults, Zeroed, CopyFaults, ForeignFaults;
        internal int FaultsFd, StopFd, OthersFd, Reserved;
    }
}
