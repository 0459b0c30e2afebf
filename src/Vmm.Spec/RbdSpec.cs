using System.Text.Json.Serialization;

namespace Vmm.Spec;

/// <summary>A disk that is an image of a Ceph cluster. The key is in a file, never here.</summary>
public sealed record RbdSpec
{
    /// <summary>Where Ceph's programs look for the cluster's settings.</summary>
    public const string UsualConf = "/etc/ceph/ceph.conf";

    /// <summary>Who Ceph's programs are when nobody says it.</summary>
    public const string UsualUser = "admin";

    /// <summary>The pool.</summary>
    public string Pool { get; init; } = "";

    /// <summary>The namespace of the pool; empty is its usual one.</summary>
    public string Namespace { get; init; } = "";

    /// <summary>The image.</summary>
    public string Image { get; init; } = "";

    /// <summary>The cluster's ceph.conf.</summary>
    public string Conf { get; init; } = UsualConf;

    /// <summary>The user of the cluster, without <c>client.</c> before it.</summary>
    public string User { get; init; } = UsualUser;

    /// <summary>The file with the user's key; null is where Ceph's programs look for it (<see cref="KeyringFile"/>).</summary>
    public string? Keyring { get; init; }

    /// <summary>Seconds for which requests are held when the cluster does not answer, before they fail.</summary>
    public int Reconnect { get; init; } = 600;

    /// <summary>A request without an answer for so many seconds is asked again.</summary>
    public int Timeout { get; init; } = 30;

    /// <summary>The file with the user's key.</summary>
    [JsonIgnore]
    public string KeyringFile => Keyring ?? $"/etc/ceph/ceph.client.{User}.keyring";

    /// <summary>The disk's name for people, and its form on the command line: <c>rbd:pool/image?user=name</c>.</summary>
    [JsonIgnore]
    public string Uri => RbdUri.Write(this);
}
