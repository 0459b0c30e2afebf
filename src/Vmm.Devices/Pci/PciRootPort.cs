namespace Vmm.Devices.Pci;

/// <summary>
/// A PCI Express root port with a slot that devices come into and leave while the guest runs (PCI Express base spec 6.7). The slot has an
/// attention button, a power indicator and a power controller; a device comes and goes by them, not by surprise:
/// <list type="bullet">
/// <item>A device that is put in has no power. The port tells of its presence and of a press of the button, and the guest gives it
/// power.</item>
/// <item>The host asks for it by a press of the button. The guest lets go of it, takes its power and turns the indicator off: then it may
/// be taken out.</item>
/// <item>Taken without that it is gone at once: presence and link are lost.</item>
/// </list>
/// Events come by the interrupt pin. Commands need no time, so there is no event of their completion (7.5.3.9, No Command Completed
/// Support). Under the lock of <see cref="PciHostBridge"/>.
/// </summary>
internal sealed class PciRootPort : PciBridge
{
    private const uint ButtonPresent = 1, PowerController = 2, PowerIndicator = 0x10, HotPlugCapable = 0x40, NoCommandCompleted = 1 << 18;
    private const int NumberShift = 19, RoomBytes = 32;
    private const byte VendorSpecific = 9, RoomType = 1;

    // Slot control (7.5.3.10). An event and what enables it have the same bit, but those of the link.
    private const uint EventMask = 9, FaultEnable = 2, InterruptEnable = 0x20, IndicatorMask = 0x300, IndicatorOn = 0x100,
        IndicatorBlinks = 0x200, IndicatorOff = 0x300, PowerOff = 0x400, LinkEnable = 0x1000;

    // Slot status (7.5.3.11).
    private const uint ButtonPressed = 1, PowerFault = 2, PresenceChanged = 8, Present = 0x40, LinkChanged = 0x100;

    private readonly ExpressCapability _express;
    private readonly PciField _control, _status;
    private readonly IntxPin _pin;
    private PortSlotState _state;
    private bool _ejected, _toPress;

    /// <param name="behind">The bus behind it.</param>
    /// <param name="slot">Its slot on bus 0.</param>
    /// <param name="tellsRoom">Firmware gives the bus its windows, and is told how much room a device that comes needs.</param>
    internal PciRootPort(BehindBridge behind, int slot, bool tellsRoom = false)
        : base($"PCI Express port {behind.Bus}", 0x000C, PciBusKind.Express, behind, slot, slots: 1)
    {
        _pin = AddInterruptPin(IsInterruptPending);
        _express = ExpressCapability.OfRootPort(Config, (byte)behind.Bus);
        _express.LinkControl!.Written = _ => Settle();
        PciCapability registers = _express.Registers;
        registers.Add(20, 4, ButtonPresent | PowerController | PowerIndicator | HotPlugCapable | NoCommandCompleted
            | ((uint)behind.Bus << NumberShift));
        _control = registers.Add(
            24, 2, IndicatorOff | PowerOff, EventMask | FaultEnable | InterruptEnable | IndicatorMask | PowerOff | LinkEnable);
        _control.Written = _ => Settle();
        _status = registers.Add(26, 2, 0, clearedByOnes: ButtonPressed | PowerFault | PresenceChanged | LinkChanged);
        _status.Written = _ => _pin.Update();
        if (tellsRoom)
        {
            TellRoom();
        }
    }

    /// <summary>
    /// What firmware is to keep free behind a port (QEMU's docs/pcie_pci_bridge.txt, vendor-specific capability of type 1; edk2's
    /// PciHotPlugInitDxe). Without it edk2 keeps 4 KiB of I/O ports free behind each port, which there are not, and leaves ports out with
    /// all that is behind them. The prefetchable room is as small as can be said: the port has no such window, so it is of the other.
    /// </summary>
    private void TellRoom()
    {
        PciCapability room = Config.AddCapability(VendorSpecific, RoomBytes);
        room.Add(2, 1, RoomBytes);
        room.Add(3, 1, RoomType);
        room.Add(4, 4, 0);         // buses
        room.Add(8, 4, 0);         // I/O ports, 64 bits
        room.Add(12, 4, 0);
        room.Add(16, 4, 2 << 20);  // memory below 4 GiB
        room.Add(20, 4, 1 << 20);  // prefetchable memory below 4 GiB
        room.Add(24, 4, 0);        // and above it, 64 bits
        room.Add(28, 4, 0);
    }

    /// <summary>What is in the slot.</summary>
    internal PortSlotState State => _state;

    /// <inheritdoc/>
    internal override bool IsLinked => PortSlot.IsLinked(_state);

    /// <summary>The guest let go of the device since this was asked last: it is for the host to take out.</summary>
    internal bool TakeEjected()
    {
        bool ejected = _ejected;
        _ejected = false;
        return ejected;
    }

    /// <summary>A device is in the slot from the start, with power, as firmware leaves it.</summary>
    internal void Populate()
    {
        _control.Value = (_control.Value & ~(IndicatorMask | PowerOff)) | IndicatorOn;
        Apply(PortSlotEvent.Insert);
        Apply(PortSlotEvent.LinkUp);
    }

    /// <summary>A device was put in.</summary>
    internal void Insert()
    {
        Apply(PortSlotEvent.Insert);
        Tell(PresenceChanged | ButtonPressed);
        Settle();
    }

    /// <summary>Asks the guest to let go of the device, again if it was asked before; false when there is none.</summary>
    internal bool Ask()
    {
        if (_state == PortSlotState.Empty)
        {
            return false;
        }

        Apply(PortSlotEvent.Ask);
        _toPress = true;
        Settle();
        return true;
    }

    /// <summary>Takes the device, whatever the guest says; false when there is none.</summary>
    internal bool Take()
    {
        if (_state == PortSlotState.Empty)
        {
            return false;
        }

        Tell(PresenceChanged | (IsLinked ? LinkChanged : 0));
        Apply(PortSlotEvent.Take);
        _toPress = false;
        _pin.Update();
        return true;
    }

    /// <summary>The guest is asked for the device: part of the saved state.</summary>
    internal bool IsLeaving => PortSlot.IsLeaving(_state);

    /// <summary>The button is still to be pressed for that: part of the saved state.</summary>
    internal bool IsToPress => _toPress;

    /// <summary>The guest was asked for the device before the state was saved.</summary>
    /// <param name="toPress">The button is still to be pressed.</param>
    internal void RestoreLeaving(bool toPress)
    {
        Apply(PortSlotEvent.Ask);
        _toPress = toPress;
    }

    /// <inheritdoc/>
    protected override void Restored()
    {
        base.Restored();
        _state = _state == PortSlotState.Empty ? _state : HasPower ? PortSlotState.On : PortSlotState.Off;
        ShowState();
        _pin.Update();
    }

    private bool HasPower => (_control.Value & PowerOff) == 0 && !_express.IsLinkDisabled;

    /// <summary>The slot follows its controls.</summary>
    private void Settle()
    {
        if (Apply(HasPower ? PortSlotEvent.LinkUp : PortSlotEvent.LinkDown))
        {
            Tell(LinkChanged);
        }

        uint indicator = _control.Value & IndicatorMask;
        if ((_control.Value & PowerOff) != 0 && indicator == IndicatorOff && Apply(PortSlotEvent.Safe))
        {
            Tell(PresenceChanged);
            _ejected = true;
            _toPress = false;
        }

        // While the indicator blinks software is at work: a press would take back what it does, or not be heeded (6.7.1.5).
        if (_toPress && indicator != IndicatorBlinks)
        {
            Tell(ButtonPressed);
            _toPress = false;
        }

        _pin.Update();
    }

    /// <summary>Whether it changed anything.</summary>
    private bool Apply(PortSlotEvent what)
    {
        PortSlotState before = _state;
        _state = PortSlot.Next(before, what);
        if (PortSlot.IsLinked(before) != IsLinked && what != PortSlotEvent.Take)
        {
            UpdateBehind(reset: what == PortSlotEvent.LinkDown); // 6.6.1; a device that is taken is the host's
        }

        ShowState();
        return _state != before;
    }

    private void ShowState()
    {
        _status.Value = (_status.Value & ~Present) | (_state == PortSlotState.Empty ? 0 : Present);
        _express.ShowLink(IsLinked);
    }

    private void Tell(uint events) => _status.Value |= events;

    /// <summary>6.7.3.4: an event whose interrupt is enabled, while those of hot-plug are.</summary>
    private bool IsInterruptPending()
    {
        uint control = _control.Value, status = _status.Value;
        bool any = (control & status & EventMask) != 0 || ((control & LinkEnable) != 0 && (status & LinkChanged) != 0);
        return any && (control & InterruptEnable) != 0;
    }
}
