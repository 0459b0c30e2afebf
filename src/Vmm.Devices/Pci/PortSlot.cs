namespace Vmm.Devices.Pci;

/// <summary>What is in the slot of a <see cref="PciRootPort"/>.</summary>
internal enum PortSlotState
{
    /// <summary>Nothing.</summary>
    Empty,

    /// <summary>A device without power, or whose link is disabled: nobody reaches it.</summary>
    Off,

    /// <summary>A device that works.</summary>
    On,

    /// <summary>The same; the guest is asked to let go of it.</summary>
    Leaving,

    /// <summary>A device out of reach that the guest is asked to let go of.</summary>
    LeavingOff,
}

/// <summary>What happens to a slot.</summary>
internal enum PortSlotEvent
{
    /// <summary>A device is put in.</summary>
    Insert,

    /// <summary>The host wants it back.</summary>
    Ask,

    /// <summary>The guest gave it power, and its link is enabled.</summary>
    LinkUp,

    /// <summary>The guest took its power, or disabled its link.</summary>
    LinkDown,

    /// <summary>It has no power, and the power indicator says that it may be taken out (PCI Express base spec 6.7.1.1.2).</summary>
    Safe,

    /// <summary>The host takes it, whatever the guest says.</summary>
    Take,
}

/// <summary>The transitions of a slot. A state that an event does not name stays.</summary>
internal static class PortSlot
{
    internal static PortSlotState Next(PortSlotState state, PortSlotEvent what) => (state, what) switch
    {
        (PortSlotState.Empty, PortSlotEvent.Insert) => PortSlotState.Off,
        (PortSlotState.Off, PortSlotEvent.LinkUp) => PortSlotState.On,
        (PortSlotState.On, PortSlotEvent.LinkDown) => PortSlotState.Off,
        (PortSlotState.On, PortSlotEvent.Ask) => PortSlotState.Leaving,
        (PortSlotState.Off, PortSlotEvent.Ask) => PortSlotState.LeavingOff,
        (PortSlotState.Leaving, PortSlotEvent.LinkDown) => PortSlotState.LeavingOff,
        (PortSlotState.LeavingOff, PortSlotEvent.LinkUp) => PortSlotState.Leaving,
        (PortSlotState.LeavingOff, PortSlotEvent.Safe) => PortSlotState.Empty,
        (_, PortSlotEvent.Take) => PortSlotState.Empty,
        _ => state,
    };

    /// <summary>Its device is on the bus.</summary>
    internal static bool IsLinked(PortSlotState state) => state is PortSlotState.On or PortSlotState.Leaving;

    /// <summary>The guest is asked for it.</summary>
    internal static bool IsLeaving(PortSlotState state) => state is PortSlotState.Leaving or PortSlotState.LeavingOff;
}
