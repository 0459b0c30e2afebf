namespace Vmm.Interop.Kvm;

/// <summary>The name a type or member has in linux/kvm.h; the layout test compiles it against that header.</summary>
[AttributeUsage(AttributeTargets.Struct | AttributeTargets.Field)]
public sealed class KernelNameAttribute(string name) : Attribute
{
    /// <summary>C name: of a struct without the word "struct", of a member with the path from its struct ("io.port").</summary>
    public string Name { get; } = name;
}
