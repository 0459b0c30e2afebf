using System.Runtime.InteropServices;

namespace Vmm.Interop.Kvm;

#pragma warning disable CS1591 // Fields carry the names they have in linux/kvm.h; a compiled test proves the layout.

/// <summary>A memory slot (KVM_SET_USER_MEMORY_REGION).</summary>
[KernelName("kvm_userspace_memory_region")]
public struct KvmUserspaceMemoryRegion
{
    public uint Slot, Flags;
    public ulong GuestPhysAddr, MemorySize, UserspaceAddr;
}

/// <summary>An eventfd that raises a GSI (KVM_IRQFD).</summary>
[KernelName("kvm_irqfd")]
public struct KvmIrqfd
{
    public uint Fd, Gsi, Flags, Resamplefd;
    public Bytes16 Pad;
}

/// <summary>An eventfd that a guest write signals (KVM_IOEVENTFD).</summary>
[KernelName("kvm_ioeventfd")]
public struct KvmIoeventfd
{
    public ulong Datamatch, Addr;
    public uint Len;
    public int Fd;
    public uint Flags;
    public Bytes36 Pad;
}

/// <summary>One GSI route; the union's first words (KVM_SET_GSI_ROUTING).</summary>
[KernelName("kvm_irq_routing_entry")]
public struct KvmIrqRoutingEntry
{
    public uint Gsi, Type, Flags, Pad;
    /// <summary>irqchip: the chip; MSI: address low.</summary>
    [KernelName("u.msi.address_lo")] public uint Word0;
    /// <summary>irqchip: the pin; MSI: address high.</summary>
    [KernelName("u.msi.address_hi")] public uint Word1;
    /// <summary>MSI: data.</summary>
    [KernelName("u.msi.data")] public uint Word2;
    [KernelName("u.msi.devid")] public uint Word3;
    [KernelName("u.pad[4]")] public UInt32x4 Rest;
}

/// <summary>Start of the buffer of KVM_SET_GSI_ROUTING.</summary>
[KernelName("kvm_irq_routing")]
public struct KvmIrqRoutingHeader
{
    public uint Nr, Flags;
}

/// <summary>A level on a GSI (KVM_IRQ_LINE).</summary>
[KernelName("kvm_irq_level")]
public struct KvmIrqLevel
{
    public uint Irq, Level;
}

/// <summary>A message-signalled interrupt (KVM_SIGNAL_MSI).</summary>
[KernelName("kvm_msi")]
public struct KvmMsi
{
    public uint AddressLo, AddressHi, Data, Flags, Devid;
    public UInt32x3 Pad;
}

/// <summary>Bitmap of pages written since the last get (KVM_GET_DIRTY_LOG).</summary>
[KernelName("kvm_dirty_log")]
public struct KvmDirtyLog
{
    public uint Slot, Padding1;
    public ulong DirtyBitmap;
}

/// <summary>Pages to protect again (KVM_CLEAR_DIRTY_LOG).</summary>
[KernelName("kvm_clear_dirty_log")]
public struct KvmClearDirtyLog
{
    public uint Slot, NumPages;
    public ulong FirstPage, DirtyBitmap;
}

/// <summary>An attribute of a device, a VM or a vCPU (KVM_GET_DEVICE_ATTR, KVM_SET_DEVICE_ATTR).</summary>
[KernelName("kvm_device_attr")]
public struct KvmDeviceAttr
{
    public uint Flags, Group;
    public ulong Attr, Addr;
}

/// <summary>One entry of a dirty ring.</summary>
[KernelName("kvm_dirty_gfn")]
public struct KvmDirtyGfn
{
    public uint Flags, Slot;
    public ulong Offset;
}

/// <summary>PIT creation (KVM_CREATE_PIT2).</summary>
[KernelName("kvm_pit_config")]
public struct KvmPitConfig
{
    public uint Flags;
    public UInt32x15 Pad;
}

/// <summary>One PIT counter.</summary>
[KernelName("kvm_pit_channel_state")]
public struct KvmPitChannelState
{
    public uint Count;
    public ushort LatchedCount;
    public byte CountLatched, StatusLatched, Status, ReadState, WriteState, WriteLatch, RwMode, Mode, Bcd, Gate;
    public long CountLoadTime;
}

/// <summary>PIT state (KVM_GET_PIT2).</summary>
[KernelName("kvm_pit_state2")]
public struct KvmPitState2
{
    [KernelName("channels[0]")] public KvmPitChannelState Channel0;
    [KernelName("channels[1]")] public KvmPitChannelState Channel1;
    [KernelName("channels[2]")] public KvmPitChannelState Channel2;
    public uint Flags;
    public UInt32x9 Reserved;
}

/// <summary>One interrupt controller's state (KVM_GET_IRQCHIP).</summary>
[KernelName("kvm_irqchip")]
public struct KvmIrqchip
{
    public uint ChipId, Pad;
    [KernelName("chip.dummy")] public Bytes512 Chip;
}

/// <summary>kvmclock (KVM_GET_CLOCK), nanoseconds.</summary>
[KernelName("kvm_clock_data")]
public struct KvmClockData
{
    public ulong Clock;
    public uint Flags, Pad0;
    public ulong Realtime, HostTsc;
    public UInt32x4 Pad;
}

/// <summary>A capability to switch on (KVM_ENABLE_CAP).</summary>
[KernelName("kvm_enable_cap")]
public struct KvmEnableCap
{
    public uint Cap, Flags;
    public UInt64x4 Args;
    public Bytes64 Pad;
}

/// <summary>Start of the buffer of KVM_GET_MSR_INDEX_LIST.</summary>
[KernelName("kvm_msr_list")]
public struct KvmMsrListHeader
{
    public uint Nmsrs;
}

/// <summary>The run page shared with the kernel: the parts we read (struct kvm_run).</summary>
[KernelName("kvm_run")]
[StructLayout(LayoutKind.Explicit, Size = 2352)]
public struct KvmRun
{
    [FieldOffset(0)] public byte RequestInterruptWindow;
    [FieldOffset(1)] public byte ImmediateExit;
    [FieldOffset(8)] public uint ExitReason;
    [FieldOffset(12)] public byte ReadyForInterruptInjection;
    [FieldOffset(13)] public byte IfFlag;
    [FieldOffset(14)] public ushort Flags;
    [FieldOffset(16)] public ulong Cr8;
    [FieldOffset(24)] public ulong ApicBase;
    [FieldOffset(32)][KernelName("hw.hardware_exit_reason")] public ulong HardwareExitReason;
    [FieldOffset(32)][KernelName("fail_entry.hardware_entry_failure_reason")] public ulong FailEntryReason;
    [FieldOffset(40)][KernelName("fail_entry.cpu")] public uint FailEntryCpu;
    [FieldOffset(32)][KernelName("io.direction")] public byte IoDirection;
    [FieldOffset(33)][KernelName("io.size")] public byte IoSize;
    [FieldOffset(34)][KernelName("io.port")] public ushort IoPort;
    [FieldOffset(36)][KernelName("io.count")] public uint IoCount;
    [FieldOffset(40)][KernelName("io.data_offset")] public ulong IoDataOffset;
    [FieldOffset(32)][KernelName("mmio.phys_addr")] public ulong MmioAddress;
    [FieldOffset(40)][KernelName("mmio.data")] public Bytes8 MmioData;
    [FieldOffset(48)][KernelName("mmio.len")] public uint MmioLength;
    [FieldOffset(52)][KernelName("mmio.is_write")] public byte MmioIsWrite;
    [FieldOffset(32)][KernelName("internal.suberror")] public uint InternalSuberror;
    [FieldOffset(36)][KernelName("internal.ndata")] public uint InternalNdata;
    [FieldOffset(40)][KernelName("internal.data")] public UInt64x16 InternalData;
    [FieldOffset(40)][KernelName("emulation_failure.flags")] public ulong EmulationFlags;
    [FieldOffset(48)][KernelName("emulation_failure.insn_size")] public byte EmulationInsnSize;
    [FieldOffset(49)][KernelName("emulation_failure.insn_bytes")] public Bytes15 EmulationInsnBytes;
    [FieldOffset(32)][KernelName("system_event.type")] public uint SystemEventType;
    [FieldOffset(36)][KernelName("system_event.ndata")] public uint SystemEventNdata;
    [FieldOffset(40)][KernelName("system_event.data")] public UInt64x16 SystemEventData;
    [FieldOffset(32)][KernelName("notify.flags")] public uint NotifyFlags;
    [FieldOffset(32)][KernelName("eoi.vector")] public byte EoiVector;
}
