using Vmm.Devices.Bus;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>Doorbells as ioeventfds. One that KVM refuses still works: the write comes as an MMIO exit and the transport rings.</summary>
internal sealed class KvmDoorbells(KvmVm vm) : IDoorbellBinder
{
    private readonly List<Binding> _bound = [];
    private readonly Lock _gate = new();
    private bool _over;

    /// <summary>
    /// The guest runs no more and the VM goes next, with all its ioeventfds: they need not be taken off one by one, each of which waits
    /// milliseconds in the kernel (SRCU of its I/O bus).
    /// </summary>
    internal void End()
    {
        lock (_gate)
        {
            _over = true;
        }
    }

    public void Bind(GuestAddress address, int length, ulong? datamatch, EventFd doorbell)
    {
        lock (_gate)
        {
            try
            {
                vm.AssignIoEventFd(doorbell, new IoEventAddress(address.Value, (uint)length, DataMatch: datamatch));
                _bound.Add(new Binding(address.Value, doorbell));
            }
            catch (KernelException)
            {
                // A guest may move a BAR to where KVM has something else; slower notifications are its own affair.
            }
        }
    }

    public void Unbind(GuestAddress address, int length, ulong? datamatch, EventFd doorbell)
    {
        lock (_gate)
        {
            if (_bound.RemoveAll(b => b.Address == address.Value && ReferenceEquals(b.Doorbell, doorbell)) > 0 && !_over)
            {
                vm.DeassignIoEventFd(doorbell, new IoEventAddress(address.Value, (uint)length, DataMatch: datamatch));
            }
        }
    }

    private sealed record Binding(ulong Address, EventFd Doorbell);
}
