namespace Vmm.Devices.Pci;

/// <summary>What the machine's own functions on bus 0 look like.</summary>
public enum PciFace
{
    /// <summary>A host bridge that says nothing of a chipset; ECAM is where the machine puts it.</summary>
    Plain,

    /// <summary>
    /// Host bridge and LPC bridge (00:1f.0) of Intel's Q35 and ICH9, by which firmware for that chipset knows the machine; ECAM is where
    /// the firmware puts it.
    /// </summary>
    Q35,
}
