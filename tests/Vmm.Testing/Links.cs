using System.Reflection;

namespace Vmm.Testing;

/// <summary>What a program of ours is made of.</summary>
public static class Links
{
    /// <summary>Names of an assembly and of all assemblies of ours that it refers to, through however many others.</summary>
    public static HashSet<string> Of(Assembly program)
    {
        HashSet<string> seen = [];
        Queue<AssemblyName> open = new([program.GetName()]);
        while (open.TryDequeue(out AssemblyName? name))
        {
            if (seen.Add(name.Name!))
            {
                foreach (AssemblyName other in Assembly.Load(name).GetReferencedAssemblies())
                {
                    if (other.Name!.StartsWith("Vmm.", StringComparison.Ordinal))
                    {
                        open.Enqueue(other);
                    }
                }
            }
        }

        return seen;
    }
}
