using Vmm.Devices.Virtio;

namespace Vmm.Devices.VhostUser;

/// <summary>Answers the chains of a device whose back end is lost, with all that it knew.</summary>
internal interface IOrphanHandler : IChainHandler
{
    /// <summary>Readable bytes of a chain that are looked at.</summary>
    uint MostReadable { get; }

    /// <summary>Writable bytes of a chain that are filled at most.</summary>
    uint MostWritable { get; }

    /// <summary>Another back end is there: a chain with which the driver begins anew is put back for it.</summary>
    bool MayBegin { set; }

    /// <summary>Such a chain was put back; says so once.</summary>
    bool TakeBegins();
}
