namespace Vmm.Storage.Rbd;

/// <summary>An image of a Ceph cluster, and who opens it.</summary>
public sealed record RbdOptions
{
    /// <summary>What messages call it.</summary>
    public required string Name { get; init; }

    /// <summary>The pool.</summary>
    public required string Pool { get; init; }

    /// <summary>The namespace of the pool; empty is its usual one.</summary>
    public string Namespace { get; init; } = "";

    /// <summary>The image.</summary>
    public required string Image { get; init; }

    /// <summary>The user of the cluster, without <c>client.</c> before it.</summary>
    public required string User { get; init; }

    /// <summary>The ceph.conf, which names the monitors.</summary>
    public required string Conf { get; init; }

    /// <summary>The keyring that has the user's key.</summary>
    public required string Keyring { get; init; }

    /// <summary>Refuse writes; others may write meanwhile.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>librbd keeps writes in a cache of its own until a flush.</summary>
    public bool WriteBack { get; init; }

    /// <summary>How long it is tried to get the image for this client alone.</summary>
    public TimeSpan LockPatience { get; init; } = TimeSpan.FromSeconds(10);
}
