using System.Runtime.CompilerServices;
using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>
/// One virtual CPU. One thread runs it and reads its exits; <see cref="Kick"/> may come from any thread. Its registers are in
/// KvmVcpu.State.cs. Nothing here allocates between two exits.
/// </summary>
public sealed partial class KvmVcpu : IDisposable
{
    private readonly VcpuHandle _handle;
    private readonly RunPage _page;

    internal KvmVcpu(KvmVm vm, VcpuHandle handle, uint id)
    {
        Vm = vm;
        Id = id;
        _handle = handle;
        _page = handle.MapRunPage(vm.System.VcpuMmapSize);
    }

    /// <summary>The VM it belongs to.</summary>
    public KvmVm Vm { get; }

    /// <summary>Its id, the APIC id too.</summary>
    public uint Id { get; }

    /// <summary>
    /// Runs the guest until it needs us. A pending I/O or MMIO read takes its answer from the data span when the next run starts.
    /// </summary>
    /// <exception cref="KernelException">KVM_RUN failed with anything but EINTR.</exception>
    public KvmExit Run()
    {
        int answer = _handle.Run();
        if (answer == 0)
        {
            return (KvmExit)_page.Run.ExitReason;
        }

        return answer == -Errno.EINTR ? KvmExit.Interrupted : throw new KernelException($"KVM_RUN vcpu {Id}", -answer);
    }

    /// <summary>
    /// From any thread: ends the run in progress, or else the next one, with <see cref="KvmExit.Interrupted"/>. Never lost: a kick that
    /// meets another exit ends the run after it. Kicks that meet are answered once; an answer without a kick can happen.
    /// </summary>
    /// <exception cref="KernelException">The signal cannot be sent.</exception>
    public void Kick() => KernelException.ThrowIfError(_handle.Kick(), "tgkill");

    /// <summary>
    /// True: the next run finishes pending I/O and comes back as <see cref="KvmExit.Interrupted"/> without entering the guest.
    /// </summary>
    public bool ImmediateExit
    {
        get => Volatile.Read(ref _page.Run.ImmediateExit) != 0;
        set => Volatile.Write(ref _page.Run.ImmediateExit, value ? (byte)1 : (byte)0);
    }

    /// <summary>
    /// Finishes the I/O or MMIO instruction of the last exit, so that the registers are whole for a save. Runs no guest code.
    /// </summary>
    /// <exception cref="KernelException">KVM_RUN failed.</exception>
    public KvmExit CompletePendingIo()
    {
        ImmediateExit = true;
        return Run();
    }

    /// <summary>The ring of the pages this vCPU writes, for one reader; dispose it before the vCPU.</summary>
    /// <exception cref="InvalidOperationException">The VM has no dirty rings: <see cref="KvmVm.EnableDirtyRing"/>.</exception>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public KvmDirtyRing OpenDirtyRing() => Vm.DirtyRingBytes > 0
        ? new KvmDirtyRing(_handle.MapDirtyRing(Vm.DirtyRingBytes))
        : throw new InvalidOperationException("The VM was made without dirty rings.");

    /// <summary>Port of the I/O exit.</summary>
    public ushort IoPort => _page.Run.IoPort;

    /// <summary>True for OUT.</summary>
    public bool IoIsWrite => _page.Run.IoDirection != 0;

    /// <summary>Bytes of one item: 1, 2 or 4.</summary>
    public int IoSize => _page.Run.IoSize;

    /// <summary>Items (more than one for rep ins/outs).</summary>
    public int IoCount => (int)_page.Run.IoCount;

    /// <summary>The items, <see cref="IoCount"/> times <see cref="IoSize"/> bytes: the guest's for OUT, to be filled for IN.</summary>
    public Span<byte> IoData
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => _page.IoData;
    }

    /// <summary>Guest physical address of the MMIO exit.</summary>
    public ulong MmioAddress => _page.Run.MmioAddress;

    /// <summary>True when the guest writes.</summary>
    public bool MmioIsWrite => _page.Run.MmioIsWrite != 0;

    /// <summary>The bytes, 1 to 8: the guest's for a write, to be filled for a read.</summary>
    public Span<byte> MmioData => _page.MmioData;

    /// <summary>Of the fail-entry exit.</summary>
    public FailEntryInfo FailEntry => new(_page.Run.FailEntryReason, _page.Run.FailEntryCpu);

    /// <summary>Of the system-event exit.</summary>
    public SystemEventInfo SystemEvent => new(_page.Run.SystemEventType);

    /// <summary>Vector of the IoApicEoi exit.</summary>
    public byte EoiVector => _page.Run.EoiVector;

    /// <summary>
    /// After <see cref="KvmExit.Notify"/>: the guest's state is lost, so that it cannot go on (KVM_NOTIFY_CONTEXT_INVALID).
    /// </summary>
    public bool IsContextLost => (_page.Run.NotifyFlags & 1) != 0;

    /// <summary>KVM_INTERNAL_ERROR_*: 1 emulation, 2 simultaneous exceptions, 3 delivery of an event, 4 unexpected exit.</summary>
    public uint InternalErrorCode => _page.Run.InternalSuberror;

    /// <summary>
    /// The instruction bytes of an emulation failure, when the kernel gives them; up to 15. Copies into <paramref name="destination"/>,
    /// answers how many.
    /// </summary>
    public int CopyFailedInstruction(Span<byte> destination)
    {
        ref KvmRun run = ref _page.Run;
        const ulong hasBytes = 1; // KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
        if (run.InternalSuberror != 1 || run.InternalNdata < 3 || (run.EmulationFlags & hasBytes) == 0)
        {
            return 0;
        }

        int count = Math.Min(Math.Min((int)run.EmulationInsnSize, 15), destination.Length);
        for (int i = 0; i < count; i++)
        {
            destination[i] = run.EmulationInsnBytes[i];
        }

        return count;
    }

    /// <inheritdoc/>
    public void Dispose() => _handle.Dispose();
}
