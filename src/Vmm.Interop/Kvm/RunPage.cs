using System.Runtime.CompilerServices;

namespace Vmm.Interop.Kvm;

/// <summary>
/// The mapped run page of one vCPU. Only the thread that runs the vCPU reads it, between two runs; then the kernel does not touch it. The
/// owner of the <see cref="VcpuHandle"/> keeps that alive as long as this is used.
/// </summary>
public sealed unsafe class RunPage
{
    private readonly byte* _page;
    private readonly int _length;

    internal RunPage(nint page, int length)
    {
        _page = (byte*)page;
        _length = length;
    }

    /// <summary>The kernel's struct at the start of the page.</summary>
    public ref KvmRun Run
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => ref *(KvmRun*)_page;
    }

    /// <summary>
    /// Bytes of the port I/O exit: count items of size bytes; the guest's when it writes, to be filled when it reads. Empty when the
    /// kernel's numbers point outside the page.
    /// </summary>
    public Span<byte> IoData
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get
        {
            ref KvmRun run = ref Run;
            ulong length = (ulong)run.IoSize * run.IoCount;
            ulong offset = run.IoDataOffset;
            return offset > (ulong)_length || length > (ulong)_length - offset ? default : new Span<byte>(_page + offset, (int)length);
        }
    }

    /// <summary>Bytes of the MMIO exit, 1 to 8.</summary>
    public Span<byte> MmioData
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => new(Unsafe.AsPointer(ref Run.MmioData), (int)Math.Min(Run.MmioLength, 8));
    }
}
