using Xunit;

namespace Vmm.Testing;

/// <summary>As <see cref="PagerFactAttribute"/>, with data.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PagerTheoryAttribute : TheoryAttribute
{
    public override string? Skip
    {
        get => PagerFactAttribute.WhyNot ?? base.Skip;
        set => base.Skip = value;
    }
}
