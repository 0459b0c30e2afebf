using Xunit;

namespace Vmm.Testing;

/// <summary>A theory for the local KVM; without one its cases are skipped and say so, as those of <see cref="KvmFactAttribute"/>.</summary>
public sealed class KvmTheoryAttribute : TheoryAttribute
{
    /// <summary>Looks for KVM once a test.</summary>
    public KvmTheoryAttribute() => Skip = new KvmFactAttribute().Skip;

    /// <summary>True for what pages guest memory.</summary>
    public bool NeedsPager
    {
        get => Skip is not null;
        set => Skip ??= value ? PagerFactAttribute.WhyNot : null;
    }
}
