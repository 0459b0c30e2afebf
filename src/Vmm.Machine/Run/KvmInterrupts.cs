using Vmm.Devices.Bus;
using Vmm.Interop;
using Vmm.Kvm;

namespace Vmm.Machine.Run;

/// <summary>
/// Interrupts of devices over KVM: every line and every message is an eventfd with an irqfd, so raising one is a single write from any
/// thread. GSIs below 24 are IOAPIC pins, messages take numbers from there up.
/// </summary>
internal sealed class KvmInterrupts : IInterruptMessageFactory, IDisposable
{
    private const uint FirstMessageGsi = 24;

    private readonly KvmVm _vm;
    private readonly KvmGsiRouting _routing;
    private readonly Lock _gate = new();
    private readonly List<Message> _messages = [];
    private readonly List<Line> _lines = [];
    private bool _wideDestinations;

    internal KvmInterrupts(KvmVm vm)
    {
        _vm = vm;
        _routing = new KvmGsiRouting(vm);
        _routing.AddPcDefaults();
        _routing.Commit();
    }

    /// <summary>An edge-triggered line, until the end of the machine. Any thread.</summary>
    internal IInterruptLine CreateLine(uint gsi)
    {
        EventFd trigger = new();
        _vm.AssignIrqFd(trigger, gsi);
        Line line = new(trigger, gsi);
        lock (_gate)
        {
            _lines.Add(line);
        }

        return line;
    }

    /// <summary>
    /// A level-triggered line: what is raised stays pending, also while the guest masks its pin, until it is lowered. Any thread, while the
    /// VM exists.
    /// </summary>
    internal IInterruptLine CreateLevelLine(uint gsi) => new LevelLine(_vm, gsi);

    /// <summary>
    /// Messages name processors with 15 bits, the upper seven in address bits 11 to 5 (KVM_FEATURE_MSI_EXT_DEST_ID, announced in CPUID);
    /// before the first message, on a VM with <see cref="KvmVm.EnableWideApicIds"/>.
    /// </summary>
    internal void UseWideDestinations() => _wideDestinations = true;

    /// <summary>
    /// The address as KVM's x2APIC form of routes has it: bits 14 to 8 of the destination in bits 46 to 40 (struct kvm_irq_routing_msi,
    /// address_hi).
    /// </summary>
    internal static ulong WideDestination(ulong address)
    {
        const ulong extended = 0xFE0;
        return (address & uint.MaxValue & ~extended) | (((address & extended) >> 5) << 40);
    }

    public IInterruptMessage Route(object device, int slot, ulong address, uint data)
    {
        lock (_gate)
        {
            Message? message = _messages.Find(m => ReferenceEquals(m.Device, device) && m.Slot == slot);
            if (message is null)
            {
                uint gsi = FreeGsi();
                message = new Message(this, device, slot, new EventFd(), gsi);
                _messages.Add(message);
                SetRoute(gsi, address, data);
                _vm.AssignIrqFd(message.Trigger, gsi);
            }
            else
            {
                SetRoute(message.Gsi, address, data);
            }

            return message;
        }
    }

    public void Release(object device)
    {
        lock (_gate)
        {
            for (int i = _messages.Count - 1; i >= 0; i--)
            {
                Message message = _messages[i];
                if (!ReferenceEquals(message.Device, device))
                {
                    continue;
                }

                _vm.DeassignIrqFd(message.Trigger, message.Gsi);
                message.Trigger.Dispose();
                _routing.Remove(message.Gsi);
                _messages.RemoveAt(i);
            }

            _routing.Commit();
        }
    }

    private void SetRoute(uint gsi, ulong address, uint data)
    {
        _routing.SetMsi(gsi, _wideDestinations ? WideDestination(address) : address, data);
        _routing.Commit();
    }

    /// <summary>The lowest number that no message uses.</summary>
    private uint FreeGsi()
    {
        uint gsi = FirstMessageGsi;
        while (_messages.Exists(m => m.Gsi == gsi))
        {
            gsi++;
        }

        return gsi;
    }

    public void Dispose()
    {
        foreach (Line line in _lines)
        {
            _vm.DeassignIrqFd(line.Trigger, line.Gsi);
            line.Trigger.Dispose();
        }
    }

    private sealed record Message(KvmInterrupts Owner, object Device, int Slot, EventFd Trigger, uint Gsi) : IInterruptRoute
    {
        public void Signal() => Trigger.Signal();

        public void Retarget(ulong address, uint data)
        {
            lock (Owner._gate)
            {
                Owner.SetRoute(Gsi, address, data);
            }
        }

        public void Mask()
        {
            lock (Owner._gate)
            {
                Owner._vm.DeassignIrqFd(Trigger, Gsi);
            }
        }

        public bool Unmask()
        {
            lock (Owner._gate)
            {
                // What is written between the two is not lost: KVM looks at the eventfd when it takes it.
                bool pending = Trigger.TryTake(out _);
                Owner._vm.AssignIrqFd(Trigger, Gsi);
                return pending;
            }
        }
    }

    /// <summary>Driven by KVM_IRQ_LINE: an irqfd has no way to lower what it raised but the guest's EOI.</summary>
    private sealed record LevelLine(KvmVm Vm, uint Gsi) : IInterruptLine
    {
        public void Set(bool level) => Vm.SetIrqLine(Gsi, level);
    }

    /// <summary>An irqfd pulses its pin, which is what an edge-triggered pin wants; lowering it needs nothing.</summary>
    private sealed record Line(EventFd Trigger, uint Gsi) : IInterruptLine
    {
        public void Set(bool level)
        {
            if (level)
            {
                Trigger.Signal();
            }
        }
    }
}
