using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>An in-kernel interrupt controller (KVM_IRQCHIP_*).</summary>
public enum IrqChip
{
    /// <summary>First 8259.</summary>
    PicMaster = 0,
    /// <summary>Second 8259.</summary>
    PicSlave = 1,
    /// <summary>The I/O APIC.</summary>
    IoApic = 2,
}

/// <content>Interrupt controllers, GSIs, irqfd, ioeventfd.</content>
public sealed partial class KvmVm
{
    private const uint IrqfdDeassign = 1, IrqfdResample = 2;
    private const uint IoeventfdDatamatch = 1, IoeventfdPio = 2, IoeventfdDeassign = 4;

    /// <summary>PIC, I/O APIC and local APICs in the kernel; before the first vCPU.</summary>
    public void CreateIrqChip()
    {
        Check(KvmRequest.KVM_CREATE_IRQCHIP);
        HasKernelApic = true;
    }

    /// <summary>True once the kernel makes local APICs (full or split irqchip).</summary>
    public bool HasKernelApic { get; private set; }

    /// <summary>
    /// Local APICs in the kernel, I/O APIC (with <paramref name="ioApicPins"/> routed pins) in user space; before the first vCPU.
    /// </summary>
    public void CreateSplitIrqChip(int ioApicPins)
    {
        EnableCapability(KvmCapability.SplitIrqChip, (ulong)ioApicPins);
        HasKernelApic = true;
    }

    /// <summary>
    /// Interrupts name processors by ids of 32 bits, 255 among them (KVM_CAP_X2APIC_API). A processor whose id needs more than 8 bits can
    /// then be started although its local APIC does not begin as an x2APIC; message routes have bits 31-8 of the destination in the upper
    /// half of their address.
    /// </summary>
    /// <exception cref="KernelException">The kernel cannot.</exception>
    public void EnableWideApicIds()
    {
        const ulong use32BitIds = 1, disableBroadcastQuirk = 2;
        EnableCapability(KvmCapability.X2apicApi, use32BitIds | disableBroadcastQuirk);
    }

    /// <summary>
    /// The 8254 timer in the kernel; after <see cref="CreateIrqChip"/>. With <paramref name="speakerDummy"/> port 0x61 is answered too.
    /// </summary>
    public void CreatePit2(bool speakerDummy = true)
    {
        KvmPitConfig config = new() { Flags = speakerDummy ? 1u : 0u };
        Check(KvmRequest.KVM_CREATE_PIT2, ref config);
    }

    /// <summary>Timer state.</summary>
    public KvmPitState2 GetPit()
    {
        KvmPitState2 state = default;
        Check(KvmRequest.KVM_GET_PIT2, ref state);
        return state;
    }

    /// <summary>Sets the timer state.</summary>
    public void SetPit(in KvmPitState2 state)
    {
        KvmPitState2 copy = state;
        Check(KvmRequest.KVM_SET_PIT2, ref copy);
    }

    /// <summary>One controller's state.</summary>
    public KvmIrqchip GetIrqChip(IrqChip chip)
    {
        KvmIrqchip state = new() { ChipId = (uint)chip };
        Check(KvmRequest.KVM_GET_IRQCHIP, ref state);
        return state;
    }

    /// <summary>Sets one controller's state; the struct says which.</summary>
    public void SetIrqChip(in KvmIrqchip state)
    {
        KvmIrqchip copy = state;
        Check(KvmRequest.KVM_SET_IRQCHIP, ref copy);
    }

    /// <summary>Drives the level of a GSI that leads to the PIC or I/O APIC.</summary>
    public void SetIrqLine(uint gsi, bool level)
    {
        KvmIrqLevel line = new() { Irq = gsi, Level = level ? 1u : 0u };
        Check(KvmRequest.KVM_IRQ_LINE, ref line);
    }

    /// <summary>Delivers one MSI now. False when the guest blocked it.</summary>
    public bool SignalMsi(ulong address, uint data)
    {
        KvmMsi msi = new() { AddressLo = (uint)address, AddressHi = (uint)(address >> 32), Data = data };
        return Check(KvmRequest.KVM_SIGNAL_MSI, ref msi) > 0;
    }

    /// <summary>
    /// Each signal of <paramref name="eventFd"/> raises the GSI; with <paramref name="resampleFd"/> it is a level that the kernel drops at
    /// EOI and reports there.
    /// </summary>
    /// <exception cref="KernelException">The descriptor already has this duty, or there is no irqchip.</exception>
    public void AssignIrqFd(EventFd eventFd, uint gsi, EventFd? resampleFd = null)
    {
        KvmIrqfd irqfd = new()
        {
            Fd = (uint)eventFd.Handle.Number,
            Gsi = gsi,
            Flags = resampleFd is null ? 0 : IrqfdResample,
            Resamplefd = resampleFd is null ? 0 : (uint)resampleFd.Handle.Number,
        };
        Check(KvmRequest.KVM_IRQFD, ref irqfd);
        GC.KeepAlive(eventFd);
        GC.KeepAlive(resampleFd);
    }

    /// <summary>Ends <see cref="AssignIrqFd"/>; no interrupt comes from it afterwards.</summary>
    public void DeassignIrqFd(EventFd eventFd, uint gsi)
    {
        KvmIrqfd irqfd = new() { Fd = (uint)eventFd.Handle.Number, Gsi = gsi, Flags = IrqfdDeassign };
        Check(KvmRequest.KVM_IRQFD, ref irqfd);
        GC.KeepAlive(eventFd);
    }

    /// <summary>A guest write at <paramref name="at"/> signals the eventfd instead of exiting.</summary>
    /// <exception cref="KernelException">The place is taken, or the length is not 0, 1, 2, 4 or 8.</exception>
    public void AssignIoEventFd(EventFd eventFd, in IoEventAddress at) => IoEventFd(eventFd, at, 0);

    /// <summary>Ends <see cref="AssignIoEventFd"/>; the same address must be given.</summary>
    public void DeassignIoEventFd(EventFd eventFd, in IoEventAddress at) => IoEventFd(eventFd, at, IoeventfdDeassign);

    /// <summary>Replaces all GSI routes; use <see cref="KvmGsiRouting"/> to make them.</summary>
    internal void SetGsiRouting(ReadOnlySpan<KvmIrqRoutingEntry> routes)
    {
        byte[] buffer = new byte[8 + MemoryMarshal.AsBytes(routes).Length];
        MemoryMarshal.Write(buffer, new KvmIrqRoutingHeader { Nr = (uint)routes.Length });
        MemoryMarshal.AsBytes(routes).CopyTo(buffer.AsSpan(8));
        KernelException.ThrowIfError(_handle.Call(KvmRequest.KVM_SET_GSI_ROUTING, buffer), "KVM_SET_GSI_ROUTING");
    }

    private void IoEventFd(EventFd eventFd, in IoEventAddress at, uint flags)
    {
        KvmIoeventfd request = new()
        {
            Addr = at.Address,
            Len = at.Length,
            Datamatch = at.DataMatch ?? 0,
            Fd = eventFd.Handle.Number,
            Flags = flags | (at.IsPort ? IoeventfdPio : 0) | (at.DataMatch is null ? 0 : IoeventfdDatamatch),
        };
        Check(KvmRequest.KVM_IOEVENTFD, ref request);
        GC.KeepAlive(eventFd);
    }
}

/// <summary>What a guest has to write, and where, to signal an ioeventfd.</summary>
/// <param name="Address">Guest physical address, or port number.</param>
/// <param name="Length">Bytes of the write: 1, 2, 4, 8; 0 takes any length (MMIO, no data match).</param>
/// <param name="IsPort">True for port I/O.</param>
/// <param name="DataMatch">Only this value signals; null: any.</param>
public readonly record struct IoEventAddress(ulong Address, uint Length, bool IsPort = false, ulong? DataMatch = null);
