using System.Text.Json.Serialization;

namespace Vmm.Spec.Devices;

/// <summary>
/// An entry of <c>devices</c>: a device of one of the kinds in <see cref="DeviceKinds"/>. A kind is a record that derives from this, its
/// fields and its files; nothing else knows it but what builds it in the machine.
/// </summary>
[JsonConverter(typeof(DeviceSpecConverter))]
public abstract record DeviceSpec
{
    /// <summary>The word that names the kind, e.g. <c>pmem</c>.</summary>
    [JsonIgnore]
    public abstract string Kind { get; }

    /// <summary>
    /// Files of the host that it needs, in a fixed order. Whoever has the privileges opens them, locks them and passes them on.
    /// </summary>
    [JsonIgnore]
    public virtual IReadOnlyList<DeviceFile> Files => [];

    /// <summary>
    /// The unix socket at which the program listens that serves it (vhost-user); null: nobody does. Whoever has the privileges connects.
    /// </summary>
    [JsonIgnore]
    public virtual string? BackEnd => null;

    /// <summary>Its thread reads, writes or flushes files by its ring (io_uring); others may only wait in theirs.</summary>
    [JsonIgnore]
    public virtual bool ReachesFiles => false;

    /// <summary>What is wrong with it; paths are its fields. Bounds of numbers and texts are checked without it.</summary>
    public virtual IEnumerable<SpecProblem> Check() => [];
}

/// <summary>A file that a device needs.</summary>
/// <param name="Role">What the device knows it by: letters, e.g. <c>image</c>.</param>
/// <param name="Path">Where it is.</param>
/// <param name="Writable">It is written to, and then nobody else may use it.</param>
public sealed record DeviceFile(string Role, string Path, bool Writable);
