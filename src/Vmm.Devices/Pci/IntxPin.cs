using Vmm.Devices.Bus;

namespace Vmm.Devices.Pci;

/// <summary>
/// The interrupt pin of a function (INTx emulation, PCI Express base spec 6.1.2): a level that follows a cause of the device, unless
/// software disabled it. Nothing of it needs saving: the cause and the command register are saved state. Any thread.
/// </summary>
/// <param name="isPending">The device has a cause, and would not send a message for it. Takes no lock.</param>
public sealed class IntxPin(Func<bool> isPending)
{
    private readonly Lock _gate = new();
    private IInterruptLine? _line;
    private bool _disabled;

    /// <summary>The Interrupt Status bit (7.5.1.1.4): also while the pin is disabled.</summary>
    internal bool IsPending => isPending();

    /// <summary>To be called after every change of the cause. Whoever comes last leaves the line as the cause is.</summary>
    public void Update()
    {
        lock (_gate)
        {
            _line?.Set(!_disabled && isPending());
        }
    }

    /// <summary>Interrupt Disable of the command register (7.5.1.1.3).</summary>
    internal void Disable(bool disabled)
    {
        lock (_gate)
        {
            _disabled = disabled;
            Update();
        }
    }

    /// <summary>The function got its slot.</summary>
    /// <param name="line">An input of its own; null: the machine has no line left.</param>
    internal void Connect(IInterruptLine? line)
    {
        lock (_gate)
        {
            _line = line;
            Update();
        }
    }

    /// <summary>Off the bus: it holds the line no longer, and never will.</summary>
    internal void Disconnect()
    {
        lock (_gate)
        {
            _line?.Set(false);
            _line = null;
        }
    }
}
