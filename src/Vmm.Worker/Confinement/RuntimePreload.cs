using System.Reflection;

namespace Vmm.Worker.Confinement;

/// <summary>
/// The runtime opens assemblies when a method first needs them; without a file system, or without openat(2), it is too late then. This loads everything
/// that a program's assemblies refer to, directly or not.
/// </summary>
internal static class RuntimePreload
{
    /// <summary>Loads them all; those that are not installed are left out.</summary>
    internal static int LoadAll(Assembly program)
    {
        HashSet<string> seen = new(StringComparer.Ordinal);
        Queue<Assembly> queue = new();
        queue.Enqueue(program);
        while (queue.TryDequeue(out Assembly? assembly))
        {
            foreach (AssemblyName name in assembly.GetReferencedAssemblies())
            {
                if (!seen.Add(name.Name!))
                {
                    continue;
                }

                try
                {
                    queue.Enqueue(Assembly.Load(name));
                }
                catch (IOException)
                {
                    // A reference that no method of ours leads to.
                }
            }
        }

        return seen.Count;
    }
}
