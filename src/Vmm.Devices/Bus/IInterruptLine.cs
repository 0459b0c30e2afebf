using Vmm.Interop;

namespace Vmm.Devices.Bus;

/// <summary>A wired interrupt (one GSI) as a device sees it. Safe to call from any thread.</summary>
public interface IInterruptLine
{
    /// <summary>Raises (true) or lowers (false) the line.</summary>
    void Set(bool level);
}

/// <summary>One message-signalled interrupt as a device sees it. Safe to call from any thread, allocates nothing.</summary>
public interface IInterruptMessage
{
    /// <summary>Sends the message.</summary>
    void Signal();
}

/// <summary>
/// A message-signalled interrupt that others can send: whoever writes to <see cref="Trigger"/> (a thread, the kernel) sends the message,
/// without waking a thread of ours. All but <see cref="Trigger"/> only from threads of vCPUs, one at a time.
/// </summary>
public interface IInterruptRoute : IInterruptMessage
{
    /// <summary>The eventfd, the same as long as the route lives.</summary>
    EventFd Trigger { get; }

    /// <summary>Sends another message from now on.</summary>
    void Retarget(ulong address, uint data);

    /// <summary>What is written to the trigger stays in it.</summary>
    void Mask();

    /// <summary>Sends again. True when something was written meanwhile, which the caller sends or keeps.</summary>
    bool Unmask();
}

/// <summary>
/// Hands out message-signalled interrupts; over KVM each becomes an irqfd with a GSI route, in tests a counter.
/// </summary>
public interface IInterruptMessageFactory
{
    /// <summary>
    /// Makes (or re-targets) slot <paramref name="slot"/> of a device for the message <paramref name="address"/>/<paramref name="data"/>
    /// (Intel SDM vol. 3, 11.11).
    /// </summary>
    IInterruptMessage Route(object device, int slot, ulong address, uint data);

    /// <summary>Gives back every message of a device.</summary>
    void Release(object device);
}

/// <summary>
/// Lets a transport ask that guest writes to an address ring a doorbell directly (KVM_IOEVENTFD); without KVM the write arrives through
/// <see cref="IBusDevice.Write"/> and the transport signals the same doorbell itself.
/// </summary>
public interface IDoorbellBinder
{
    /// <summary>
    /// Any write of <paramref name="length"/> bytes (0: any length) at <paramref name="address"/> signals <paramref name="doorbell"/>; with
    /// <paramref name="datamatch"/>, only writes of that value.
    /// </summary>
    void Bind(Vmm.Memory.GuestAddress address, int length, ulong? datamatch, Vmm.Interop.EventFd doorbell);

    /// <summary>Undoes <see cref="Bind"/> with the same arguments.</summary>
    void Unbind(Vmm.Memory.GuestAddress address, int length, ulong? datamatch, Vmm.Interop.EventFd doorbell);
}
