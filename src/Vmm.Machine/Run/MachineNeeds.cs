using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Memory.Paging;

namespace Vmm.Machine.Run;

/// <summary>
/// What the parts of one machine ask of the kernel: those that it has, and disks and network devices, which can come at any time.
/// </summary>
/// <param name="Threads">Its threads that no driver starts, and those of any device.</param>
/// <param name="Vcpus">Its vCPU threads. The process is allowed this, too: its filter holds them as well.</param>
public sealed record MachineNeeds(SyscallNeeds Threads, SyscallNeeds Vcpus)
{
    /// <summary>Changing what is RAM.</summary>
    internal static SyscallNeeds MemorySlots { get; } = new([], [(uint)KvmRequest.KVM_SET_USER_MEMORY_REGION]);

    /// <summary>What virtio-mem's thread asks for: it changes what is RAM, and tells vhost.</summary>
    internal static SyscallNeeds HotMemory { get; } = MemorySlots + VhostNet.MemoryNeeds;

    /// <summary>A queue's thread raises the interrupt pin of its function.</summary>
    internal static SyscallNeeds InterruptLines { get; } = new([], [(uint)KvmRequest.KVM_IRQ_LINE]);

    /// <summary>
    /// What the pager's threads ask for: pages come and go by ioctl (linux/userfaultfd.h), out of memfds and the swap file. Its userfaultfd
    /// was made, and knows all memory, before the filters are in force.
    /// </summary>
    internal static SyscallNeeds Paging { get; } = SwapStore.Needs + new SyscallNeeds(
        ["madvise", "read", "poll"],
        [
            0x8010AA01 /* UFFDIO_UNREGISTER */, 0x8010AA02 /* UFFDIO_WAKE */, 0xC028AA03 /* UFFDIO_COPY */,
            0xC020AA04 /* UFFDIO_ZEROPAGE */, 0xC020AA07 /* UFFDIO_CONTINUE */,
        ]);

    private static readonly SyscallNeeds s_disks = BlockFile.Needs + BlockFile.OpenNeeds + InterruptLines;

    private static readonly SyscallNeeds s_nets = TapQueue.Needs + TapQueue.OpenNeeds + VhostNet.Needs + VhostNet.OpenNeeds;

    /// <summary>Those of a machine without devices.</summary>
    public static MachineNeeds Pluggable { get; } = new(s_disks + s_nets, TapQueue.SetupNeeds + VhostNet.Needs);

    /// <summary>With firmware, whose flash shows and hides its bytes on a vCPU thread.</summary>
    public MachineNeeds WithFirmware() => new(Threads, Vcpus + HotMemory);

    /// <summary>With a resident limit. A vCPU thread waits in the kernel for its page, and asks for nothing.</summary>
    public MachineNeeds WithPaging() => new(Threads + Paging, Vcpus);

    /// <summary>
    /// With a device that is there from the start. Its driver moves shared memory on a vCPU thread, and the host takes it away on another.
    /// </summary>
    public MachineNeeds With(VirtioDevice device)
    {
        SyscallNeeds moved = device.SharedMemory.Count > 0 ? HotMemory : SyscallNeeds.None;
        return new(Threads + device.ThreadNeeds + InterruptLines + moved, Vcpus + device.VcpuNeeds + moved);
    }
}
